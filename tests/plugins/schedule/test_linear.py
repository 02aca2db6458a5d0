from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lamina.plugins.schedule.linear import Linear, LinearConfig


@pytest.mark.parametrize("min_factor", [0.0, 0.3])
def test_without_warm_up_it_is_torchs_linear_schedule(min_factor: float) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1.0, end_factor=min_factor, total_iters=10)
    schedule = Linear(LinearConfig(min_factor=min_factor))
    for step in range(11):
        assert schedule.factor(step, 11) == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()


def test_warm_up_is_linear_and_the_decay_starts_from_its_top() -> None:
    schedule = Linear(LinearConfig(warmup_steps=4))
    assert [schedule.factor(step, 8) for step in range(8)] == pytest.approx([0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25, 0])


@given(n_steps=st.integers(1, 200), warmup_steps=st.integers(0, 300), min_factor=st.floats(0, 1))
def test_it_climbs_then_falls_in_even_steps(n_steps: int, warmup_steps: int, min_factor: float) -> None:
    schedule = Linear(LinearConfig(warmup_steps=warmup_steps, min_factor=min_factor))
    factors = [schedule.factor(step, n_steps) for step in range(n_steps)]
    peak = min(max(warmup_steps - 1, 0), n_steps - 1)
    assert all(0 <= factor <= 1 for factor in factors)
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    drops = [a - b for a, b in zip(factors[peak:], factors[peak + 1 :], strict=False)]
    assert drops == pytest.approx([(1 - min_factor) / max(1, n_steps - 1 - peak)] * len(drops))
