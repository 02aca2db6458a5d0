"""A language model small enough to check by hand: logits depend on the last two tokens alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from lamina.core import Request, Sampler


class ToyStep:
    """A `Step` over a table of logits (V, V, V). It also notes how many rows each call had."""

    def __init__(self, vocab_size: int, seed: int = 0, sharpness: float = 1.0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.table = sharpness * torch.randn(vocab_size, vocab_size, vocab_size, generator=generator)
        self.vectors = torch.randn(vocab_size, vocab_size, 6, generator=generator)  # features after any two tokens
        self.batches: list[int] = []
        self.marked: Tensor | None = None
        self.calls = 0  # of several tokens
        self.since: list[Tensor] = []

    def start(self, token_ids: Tensor, lengths: Tensor) -> Tensor:
        before = token_ids[:, -2] if token_ids.shape[1] > 1 else torch.zeros(len(token_ids), dtype=torch.int64)
        self.last = torch.stack([torch.where(lengths > 1, before, 0), token_ids[:, -1]], 1)
        self.batches.append(len(token_ids))
        shifted = torch.cat([torch.zeros_like(token_ids[:, :1]), token_ids[:, :-1]], 1)
        self.features = self.vectors[shifted, token_ids]
        return self.table[self.last[:, 0], self.last[:, 1]]

    def advance(self, token_ids: Tensor) -> Tensor:
        self.last = torch.stack([self.last[:, 1], token_ids], 1)
        self.batches.append(len(token_ids))
        self.since.append(token_ids)
        self.features = self.vectors[self.last[:, 0], self.last[:, 1]].unsqueeze(1)
        return self.table[self.last[:, 0], self.last[:, 1]]

    def advance_many(self, token_ids: Tensor) -> Tensor:
        self.calls += 1
        return torch.stack([self.advance(column) for column in token_ids.T], 1)

    def reorder(self, rows: Tensor) -> None:
        self.last = self.last[rows]

    def mark(self, n_tokens: int) -> None:
        self.marked, self.room, self.since = self.last, n_tokens, []

    def keep(self, n_tokens: int) -> None:
        assert self.marked is not None
        assert n_tokens <= len(self.since) <= self.room
        self.last, self.marked, since = self.marked, None, self.since
        for token_ids in since[:n_tokens]:
            self.last = torch.stack([self.last[:, 1], token_ids], 1)


def ask_for(
    prompts: list[list[int]],
    max_new_tokens: int,
    *,
    stop: tuple[int, ...] = (),
    chain: tuple[Sampler, ...] = (),
    context_length: int = 1000,
    seeds: list[int] | None = None,
) -> Request:
    """Prompts of any lengths, padded on the left; row b draws from seed b unless told otherwise."""
    longest = max(map(len, prompts))
    return Request(
        token_ids=torch.tensor([[0] * (longest - len(ids)) + ids for ids in prompts]),
        lengths=torch.tensor([len(ids) for ids in prompts]),
        max_new_tokens=max_new_tokens,
        context_length=context_length,
        chain=chain,
        generators=[torch.Generator().manual_seed(seed) for seed in seeds or range(len(prompts))],
        stop_ids=frozenset(stop),
    )


def rows_of(pieces: Iterator[Tensor]) -> list[list[int]]:
    """Each row's tokens, -1 left out."""
    whole = torch.cat(list(pieces), 1)
    return [[token for token in row if token >= 0] for row in whole.tolist()]


@pytest.fixture
def toy() -> type[ToyStep]:
    return ToyStep


@pytest.fixture
def ask() -> Callable[..., Request]:
    return ask_for


@pytest.fixture
def collect() -> Callable[..., list[list[int]]]:
    return rows_of
