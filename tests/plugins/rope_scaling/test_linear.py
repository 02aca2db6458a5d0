"""Position interpolation against transformers and its own definition."""

from __future__ import annotations

from typing import Any

import pytest
from torch.testing import assert_close

from lamina.core import rope_frequencies


@pytest.mark.parametrize(("theta", "width", "factor"), [(10_000.0, 16, 4.0), (500.0, 6, 1.5)])
def test_linear_equals_transformers(
    scaling: Any, turns_at: Any, transformers_turns: Any, theta: float, width: int, factor: float
) -> None:
    ours = turns_at(scaling("linear", theta=theta, width=width, factor=factor))
    assert_close(ours, transformers_turns("linear", theta=theta, head_dim=width, factor=factor))


def test_a_position_is_turned_as_one_that_is_factor_times_nearer(scaling: Any, turns_at: Any) -> None:
    frequencies, _ = turns_at(scaling("linear", factor=4.0))
    assert (frequencies * 40).tolist() == pytest.approx([10 * f for f in rope_frequencies(10_000.0, 16)])
