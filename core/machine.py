"""What this machine can do at its best, measured: matrix products by dtype, memory reads; and the memory used so far.

The peaks are what figures are held against. Each takes a fraction of a second and is measured once a process.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

ATTEMPTS = 6  # the best counts: whatever disturbs a measurement only ever slows it down
PATIENCE = 0.05  # seconds to spend on one measurement, about
LONG = 0.03  # a product of so many seconds tells of the peak; a busy machine makes short ones look slow
LARGEST = 8192
READ_BYTES = 128 * 2**20  # several times what the caches of most machines hold


def matmul_peak(dtype: torch.dtype, device: torch.device) -> float | None:
    """FLOP/s of a square matrix product at the dtype; None where the device has no such product."""
    return _matmul_peak(dtype, device, torch.get_num_threads())


def read_peak(device: torch.device) -> float:
    """Bytes a second at which a buffer larger than the caches can be read."""
    return _read_peak(device, torch.get_num_threads())


def clock(device: torch.device) -> Callable[[], float]:
    """A clock in seconds that first waits for what the device still has to do."""
    if device.type == "cpu":
        return time.perf_counter

    def now() -> float:
        torch.accelerator.synchronize(device)
        return time.perf_counter()

    return now


def peak_memory() -> int | None:
    """Most bytes of main memory this process has held; None where the system does not tell."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the parent held before it started us
        line = next((line for line in status.read_text().splitlines() if line.startswith("VmHWM:")), None)
        if line is not None:
            return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return None
    import resource  # not there on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def available_memory() -> int | None:
    """Bytes of main memory that can still be had, swap included; None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    told = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
    return told["MemAvailable"] + told["SwapFree"] if {"MemAvailable", "SwapFree"} <= told.keys() else None


@functools.cache
def _matmul_peak(dtype: torch.dtype, device: torch.device, threads: int) -> float | None:
    # The size grows until a product takes a while. A processor without bfloat16 units is some hundred times slower than
    # at float32, so no size is right for all.
    size, best = 256, 0.0
    try:
        while size <= LARGEST:
            a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
            seconds = _best(functools.partial(torch.matmul, a, b), device)
            best = max(best, 2 * size**3 / seconds)
            if seconds > LONG:
                break
            size *= 2
    except (RuntimeError, TypeError):
        return None
    return best


@functools.cache
def _read_peak(device: torch.device, threads: int) -> float:
    buffer = torch.ones(READ_BYTES // 4, device=device)
    return buffer.nbytes / _best(buffer.sum, device)  # a sum reads and does next to nothing else


def _best(run: Callable[[], object], device: torch.device) -> float:
    """Seconds of the quickest of a few runs, of a single one when it is long."""
    now = clock(device)
    begin = end = now()
    best = float("inf")
    for _ in range(ATTEMPTS):
        start = end
        run()
        end = now()
        best = min(best, end - start)
        if end - begin > PATIENCE:
            break
    return max(best, 1e-9)
