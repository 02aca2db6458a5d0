"""Llama 3.1's scaling against transformers."""

from __future__ import annotations

from typing import Any

import pytest
from torch.testing import assert_close

from lamina.core import SpecError, rope_frequencies

OPTIONS = [
    {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    {"factor": 32.0, "low_freq_factor": 0.5, "high_freq_factor": 20.0},
    {"factor": 16.0, "low_freq_factor": 1.0, "high_freq_factor": 1.0},
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("original", [1024, 8192])
def test_llama3_equals_transformers(
    scaling: Any, turns_at: Any, transformers_turns: Any, options: dict[str, float], original: int
) -> None:
    ours = turns_at(scaling("llama3", theta=5e5, width=64, original_context_length=original, **options))
    theirs = transformers_turns("llama3", theta=5e5, head_dim=64, original_max_position_embeddings=original, **options)
    assert_close(ours, theirs)
    changed = sum(f != pytest.approx(g) for f, g in zip(ours[0].tolist(), rope_frequencies(5e5, 64), strict=True))
    assert 0 < changed < 32


def test_a_range_to_blend_over_that_ends_before_it_begins_is_refused(scaling: Any) -> None:
    with pytest.raises(SpecError, match=r"high_freq_factor \(0.5\) must be at least low_freq_factor \(1\)"):
        scaling("llama3", original_context_length=64, high_freq_factor=0.5)
