"""Attention within chunks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lamina.plugins.mask.chunked import Chunked, ChunkedConfig


def chunked(size: int) -> Chunked:
    return Chunked(ChunkedConfig(size=size))


@given(size=st.integers(1, 20))
def test_a_token_sees_what_its_chunk_held_before_it(follows: Any, size: int) -> None:
    follows(chunked(size), lambda q, k: k in range(q - q % size, q + 1))


@given(size=st.integers(1, 20))
def test_what_the_mask_says_of_itself_is_true(keeps_its_word: Any, size: int) -> None:
    keeps_its_word(chunked(size), chunked(size), chunked(size + 1))


@pytest.mark.parametrize("size", [1, 3, 5, 8])
def test_chunks_are_those_of_transformers(follows: Any, size: int) -> None:
    masking: Any = pytest.importorskip("transformers.masking_utils")
    theirs = masking.chunked_causal_mask_function(size, torch.zeros(1, dtype=torch.int64))
    follows(chunked(size), lambda q, k: bool(theirs(*(torch.tensor(index) for index in (0, 0, q, k)))))


def test_an_empty_chunk_is_refused() -> None:
    with pytest.raises(ValidationError, match="greater than 0"):
        ChunkedConfig(size=0)
