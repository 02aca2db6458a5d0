"""Proportional rope against transformers."""

from __future__ import annotations

from typing import Any

import pytest
from torch.testing import assert_close

from lamina.core import SpecError


@pytest.mark.parametrize("fraction", [0.25, 0.5, 0.3, 1.0])
@pytest.mark.parametrize("factor", [1.0, 8.0])
def test_proportional_equals_transformers(
    scaling: Any, turns_at: Any, transformers_turns: Any, fraction: float, factor: float
) -> None:
    ours = turns_at(scaling("proportional", theta=1e6, width=32, fraction=fraction, factor=factor))
    theirs = transformers_turns("proportional", theta=1e6, head_dim=32, partial_rotary_factor=fraction, factor=factor)
    assert_close(ours, theirs)


def test_less_than_a_pair_is_refused(scaling: Any) -> None:
    with pytest.raises(SpecError, match=r"0\.1 of 8 pairs is less than one pair"):
        scaling("proportional", fraction=0.1)
