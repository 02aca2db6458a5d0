"""Lengths and splits, the shorter first: the first that fails is the smallest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from lamina.core.conformance.case import VOCAB, gap
from lamina.core.conformance.checks import Wrong
from lamina.core.decoder import Decoder

TOLERANCE = 1e-5  # of float64, for components that take some steps in float32
LONG = 13


def splits(length: int, least: int = 1) -> Iterator[tuple[int, ...]]:
    """Every way to cut a text of `length` into at least `least` pieces, few pieces first."""
    for n_cuts in range(least - 1, length):
        yield from _cut(length, n_cuts)


def _cut(length: int, n_cuts: int) -> Iterator[tuple[int, ...]]:
    if n_cuts == 0:
        yield (length,)
        return
    for first in range(1, length - n_cuts + 1):
        for rest in _cut(length - first, n_cuts - 1):
            yield (first, *rest)


def all_splits(longest: int) -> Iterator[tuple[int, ...]]:
    """Every split in two or more of every length up to `longest`, then some of a length at which windows come round."""
    for length in range(2, longest + 1):
        yield from splits(length, 2)
    yield from ((1,) * LONG, (4, 1, 1, 3, 4), (3, 9, 1))
    if longest > 3:
        yield from ((2,) * 6 + (1,), (1, LONG - 1), (LONG - 1, 1), (6, 5, 2))


def run(decoder: Decoder, token_ids: Tensor, split: tuple[int, ...], document_ids: Tensor | None = None) -> Tensor:
    """Logits (B, T, V) of cached calls, one for each piece."""
    cache = decoder.make_cache(token_ids.shape[0], token_ids.shape[1])
    pieces = [None] * len(split) if document_ids is None else torch.split(document_ids, list(split), 1)
    calls = zip(torch.split(token_ids, list(split), 1), pieces, strict=True)
    return torch.cat([decoder(ids, document_ids=documents, cache=cache) for ids, documents in calls], 1)


def same(got: Tensor, want: Tensor, expected: str, tolerance: float = TOLERANCE, **case: Any) -> None:
    """Raise Wrong where two tensors differ by more than the tolerance."""
    if (off := gap(got, want)) > tolerance:
        raise Wrong(expected, f"a difference of {off:.2g}", **case)


def other(token_ids: Tensor) -> Tensor:
    """Every id another one."""
    return (token_ids + 1) % VOCAB
