"""The decoding kind: a strategy that turns next-token logits into text, over a decoder and a sampler chain."""

from __future__ import annotations

import copy
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from lamina.core.component import Component
from lamina.core.sampler import History, Sampler


class Step(Protocol):
    """What a strategy may ask of the decoder. The cache behind it follows along."""

    def start(self, token_ids: Tensor, lengths: Tensor) -> Tensor:
        """Prompts (B, L), padded on the left, real lengths (B,) -> logits (B, V) after the last token"""

    def advance(self, token_ids: Tensor) -> Tensor:
        """The next token of every row (B,) -> logits (B, V)"""

    def advance_many(self, token_ids: Tensor) -> Tensor:
        """The next n tokens of every row (B, n) -> logits (B, n, V) after each"""

    def reorder(self, rows: Tensor) -> None:
        """Keep these rows (B',) int64, in this order; a row may be taken several times"""

    def crop(self, n_tokens: int) -> None:
        """Forget all but the first `n_tokens` tokens (prompt padding included)"""


@dataclass(eq=False)
class Request:
    """What to decode, and how it ends."""

    token_ids: Tensor  # (B, L) prompts, padded on the left
    lengths: Tensor  # (B,) real lengths
    max_new_tokens: int
    context_length: int = sys.maxsize  # no row grows longer than this, its prompt included
    chain: Sequence[Sampler] = ()
    generators: Sequence[torch.Generator] = ()  # one a row, so that a row's draws do not depend on its neighbours
    stop_ids: frozenset[int] = frozenset()  # a row ends after one of these
    extras: dict[str, Any] = field(default_factory=dict)

    @property
    def limits(self) -> Tensor:
        """(B,) int64: how many tokens each row may still get"""
        return (self.context_length - self.lengths).clamp(0, self.max_new_tokens)

    def only(self, row: int) -> Request:
        """One row as a request of its own: without padding, with its own copy of what the stages remember."""
        start = self.token_ids.shape[1] - int(self.lengths[row])
        return replace(
            self,
            token_ids=self.token_ids[row : row + 1, start:],
            lengths=self.lengths[row : row + 1],
            chain=copy.deepcopy(self.chain),
            generators=self.generators[row : row + 1],
        )

    def shape(self, logits: Tensor, history: History) -> Tensor:
        """Logits (B, V) through the sampler chain, in float32."""
        logits = logits.float()
        for stage in self.chain:
            logits = stage.forward(logits, history)
        return logits


class Decoding(Component, ABC):
    """A strategy: greedy, sampling, beam search, speculation."""

    kind = "decoding"

    @abstractmethod
    def decode(self, step: Step, request: Request) -> Iterator[Tensor]:
        """Yield (B, n) int64 tokens in order as they become final, n >= 1; -1 marks a row that has ended.

        At most `max_new_tokens` in all. A stop token is yielded, then the row has ended. The caller may stop early.
        """


def one_by_one(step: Step, request: Request, choose: Callable[[Tensor, Tensor], Tensor]) -> Iterator[Tensor]:
    """The loop of strategies that settle the next token of every row at a time.

    `choose(logits, rows) -> tokens` with logits (n, V) from the chain, rows (n,) the request's rows they belong to.
    A row that has ended leaves the batch: it would cost as much as the others, and could run past the context.
    """
    batch, start = request.token_ids.shape
    limits, lengths = request.limits, request.lengths
    rows = tokens = torch.arange(batch, device=limits.device)
    stop = torch.tensor(sorted(request.stop_ids), dtype=torch.int64, device=limits.device)
    seen = request.token_ids.new_zeros(batch, start + int(limits.max()))  # (B, L + new)
    seen[:, :start] = request.token_ids
    logits = step.start(request.token_ids, lengths)
    going = limits > 0
    for n_new in range(int(limits.max())):
        kept = going.nonzero().squeeze(1)
        if len(kept) == 0:
            return
        if len(kept) < len(rows):
            rows, tokens, seen, lengths = rows[kept], tokens[kept], seen[kept], lengths[kept]
            step.reorder(kept)
            for stage in request.chain:
                stage.reorder(kept)
        logits = step.advance(tokens) if n_new else logits[kept]
        history = History(seen[:, : start + n_new], lengths + n_new, n_new)
        tokens = choose(request.shape(logits, history), rows)
        yield torch.full_like(limits, -1).scatter(0, rows, tokens).unsqueeze(1)
        seen[:, start + n_new] = tokens
        going = ~torch.isin(tokens, stop) & (limits[rows] > n_new + 1)
