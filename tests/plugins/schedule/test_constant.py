from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lamina.plugins.schedule.constant import Constant, ConstantConfig


def test_warm_up_is_linear_and_starts_above_zero() -> None:
    schedule = Constant(ConstantConfig(warmup_steps=4))
    assert [schedule.factor(step, 6) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


@given(step=st.integers(0, 1000))
def test_without_warm_up_every_step_has_the_full_rate(step: int) -> None:
    assert Constant(ConstantConfig()).factor(step, 1001) == 1.0
