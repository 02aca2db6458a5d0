import resource
from pathlib import Path

import pytest
import torch

from lamina.core.machine import available_memory, clock, matmul_peak, peak_memory, read_peak

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_peak_is_positive_and_measured_once(dtype: torch.dtype) -> None:
    peak = matmul_peak(dtype, CPU)
    assert peak is not None
    assert peak > 0
    assert matmul_peak(dtype, CPU) == peak


def test_a_dtype_without_products_has_no_peak() -> None:
    assert matmul_peak(torch.bool, CPU) is None


def test_memory_is_read_at_some_rate() -> None:
    assert read_peak(CPU) == read_peak(CPU) > 0


def test_peak_memory_covers_what_was_touched_and_given_back() -> None:
    before = peak_memory()
    assert before is not None
    torch.ones(before // 4 + 2**24)  # bytes: the peak so far and 64 MiB
    after = peak_memory()
    assert after is not None
    assert after >= before + 2**24
    assert after <= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 * 2


def test_what_can_still_be_had_is_less_than_there_is() -> None:
    room = available_memory()
    if room is not None:  # only Linux tells
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        assert 0 < room <= sum(int(lines[name].split()[0]) * 1024 for name in ("MemTotal", "SwapTotal"))


def test_the_clock_of_a_cpu_goes_forward() -> None:
    now = clock(CPU)
    assert now() <= now()
