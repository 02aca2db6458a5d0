from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.plugins.schedule.inverse_sqrt import InverseSqrt, InverseSqrtConfig


@given(step=st.integers(1, 100_000), warmup_steps=st.integers(1, 10_000))
def test_it_is_the_papers_rate_over_its_highest(step: int, warmup_steps: int) -> None:
    def published(n: int) -> float:  # section 5.3, without the model's width, steps from 1
        return min(n**-0.5, n * warmup_steps**-1.5)

    found = InverseSqrt(InverseSqrtConfig(warmup_steps=warmup_steps)).factor(step - 1, 100_000)
    assert found == pytest.approx(published(step) / published(warmup_steps))


def test_it_does_not_depend_on_the_length_of_the_run() -> None:
    schedule = InverseSqrt(InverseSqrtConfig(warmup_steps=3))
    assert [schedule.factor(s, 10) for s in range(10)] == [schedule.factor(s, 99) for s in range(10)]
