from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.core import ConfigProblem
from lamina.core.registry import load_plugins
from lamina.core.resolve import resolve_part
from lamina.plugins.schedule.wsd import WSD, WSDConfig


def factors(n_steps: int, **options: Any) -> list[float]:
    schedule = WSD(WSDConfig(**options))
    return [schedule.factor(step, n_steps) for step in range(n_steps)]


@pytest.mark.parametrize(
    ("shape", "formula"),
    [
        ("linear", lambda t: 1 - t),
        ("cosine", lambda t: math.cos(math.pi * t / 2) ** 2),
        ("sqrt", lambda t: 1 - t**0.5),
    ],
)
def test_it_warms_up_stays_and_falls_in_the_shape_asked_for(shape: str, formula: Any) -> None:
    seen = factors(20, warmup_steps=4, decay_steps=5, shape=shape, min_factor=0.1)
    decay = [0.1 + 0.9 * formula(i / 5) for i in range(1, 6)]
    assert seen == pytest.approx([0.25, 0.5, 0.75, *[1.0] * 12, *decay])


def test_a_fraction_is_one_of_the_whole_run() -> None:
    assert factors(40, decay_fraction=0.25) == factors(40, decay_steps=10)
    assert factors(40) == factors(40, decay_fraction=0.2)


def test_two_lengths_of_decay_are_refused() -> None:
    with pytest.raises(ConfigProblem, match="both say how long"):
        WSDConfig(decay_steps=3, decay_fraction=0.5).derive()


def test_the_resolved_options_say_how_long_the_decay_is_and_resolve_to_themselves() -> None:
    registry = load_plugins(only=[])
    for raw in ("wsd", {"name": "wsd", "decay_steps": 7}):
        part = resolve_part("schedule", raw, registry)
        assert (part.config.decay_fraction, part.config.decay_steps) == ((0.2, None) if raw == "wsd" else (None, 7))
        assert resolve_part("schedule", part.dump(), registry) == part


@given(
    n_steps=st.integers(1, 200),
    warmup_steps=st.integers(0, 300),
    decay_steps=st.integers(1, 300),
    shape=st.sampled_from(["linear", "cosine", "sqrt"]),
    min_factor=st.floats(0, 1),
)
def test_it_climbs_stays_and_falls_within_bounds(
    n_steps: int, warmup_steps: int, decay_steps: int, shape: str, min_factor: float
) -> None:
    seen = factors(n_steps, warmup_steps=warmup_steps, decay_steps=decay_steps, shape=shape, min_factor=min_factor)
    peak = min(max(warmup_steps - 1, 0), n_steps - 1)
    assert all(0 <= factor <= 1 + 1e-12 for factor in seen)
    assert seen[: peak + 1] == sorted(seen[: peak + 1])
    assert all(a >= b - 1e-12 for a, b in zip(seen[peak:], seen[peak + 1 :], strict=False))
    if n_steps - 1 > peak:
        assert seen[peak] == 1
        assert seen[-1] == pytest.approx(min_factor)
        assert sum(factor < 1 - 1e-9 for factor in seen[peak:]) <= decay_steps
