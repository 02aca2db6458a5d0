"""The sliding window."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lamina.core import Span, visible
from lamina.plugins.mask.sliding import Sliding, SlidingConfig


@given(window=st.integers(1, 8), length=st.integers(1, 12))
def test_a_window_of_w_is_w_visible_keys_the_token_itself_among_them(window: int, length: int) -> None:
    mask, span = Sliding(SlidingConfig(window=window)), Span.run(0, length, torch.device("cpu"))
    allowed = visible(mask, span, span)[0]
    for t in range(length):
        assert allowed[t].nonzero().flatten().tolist() == list(range(max(0, t - window + 1), t + 1))


@given(window=st.integers(1, 8))
def test_what_the_mask_says_of_itself_is_true(window: int) -> None:
    mask = Sliding(SlidingConfig(window=window))
    assert mask.reach == mask.dense_up_to == window
    short, longer = (Span.run(0, length, torch.device("cpu")) for length in (window, window + 1))
    assert visible(mask, short, short)[0].equal(torch.ones(window, window).tril().bool())
    assert not visible(mask, longer, longer)[0, -1, 0]


def test_the_attention_must_honour_a_mask() -> None:
    assert Sliding.requires(SlidingConfig(window=4)) == {"attention": frozenset({"mask"})}


def test_a_window_without_the_token_itself_is_refused() -> None:
    with pytest.raises(ValidationError, match="greater than 0"):
        SlidingConfig(window=0)
