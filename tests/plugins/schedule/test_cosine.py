from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.plugins.schedule.cosine import Cosine, CosineConfig


def test_without_warm_up_it_is_half_a_cosine_from_one_to_the_minimum() -> None:
    schedule = Cosine(CosineConfig(min_factor=0.2))
    seen = [schedule.factor(step, 11) for step in range(11)]
    assert seen == pytest.approx([0.6 + 0.4 * math.cos(math.pi * step / 10) for step in range(11)])


def test_warm_up_is_linear_and_the_decay_starts_from_its_top() -> None:
    schedule = Cosine(CosineConfig(warmup_steps=4, min_factor=0.0))
    seen = [schedule.factor(step, 8) for step in range(8)]
    decay = [math.cos(math.pi * i / 8) ** 2 for i in range(1, 5)]
    assert seen == pytest.approx([0.25, 0.5, 0.75, 1.0, *decay])


@given(n_steps=st.integers(1, 300), warmup_steps=st.integers(0, 400), min_factor=st.floats(0, 1))
def test_it_climbs_then_falls_within_bounds(n_steps: int, warmup_steps: int, min_factor: float) -> None:
    schedule = Cosine(CosineConfig(warmup_steps=warmup_steps, min_factor=min_factor))
    factors = [schedule.factor(step, n_steps) for step in range(n_steps)]
    peak = min(max(warmup_steps - 1, 0), n_steps - 1)
    assert factors[0] > 0
    assert all(0 <= factor <= 1 + 1e-12 for factor in factors)
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert all(a >= b - 1e-12 for a, b in zip(factors[peak:], factors[peak + 1 :], strict=False))
    if n_steps - 1 > peak:
        assert factors[peak] == 1
        assert factors[-1] == pytest.approx(min_factor)
