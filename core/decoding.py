"""The decoding kind: a strategy that turns next-token logits into text, over a decoder and a sampler chain."""

from __future__ import annotations

import copy
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from lamina.core.component import Component
from lamina.core.sampler import History, Sampler
from lamina.core.tokenizer import Tokenizer

BLOCK = 64  # uniform numbers drawn at a time; fixed, so that a text does not depend on how much was asked for


class Step(Protocol):
    """What a strategy may ask of the decoder. The cache behind it follows along."""

    features: Tensor  # (B, T, D) what the head reads, of the tokens of the last call; of `start` the whole prompt

    def start(self, token_ids: Tensor, lengths: Tensor) -> Tensor:
        """Prompts (B, L), padded on the left, real lengths (B,) -> logits (B, V) after the last token"""

    def advance(self, token_ids: Tensor) -> Tensor:
        """The next token of every row (B,) -> logits (B, V)"""

    def advance_many(self, token_ids: Tensor) -> Tensor:
        """The next n tokens of every row (B, n) -> logits (B, n, V) after each"""

    def reorder(self, rows: Tensor) -> None:
        """Keep these rows (B',) int64, in this order; a row may be taken several times"""

    def mark(self, n_tokens: int) -> None:
        """The next `n_tokens` tokens may have to be forgotten again, whatever kind of memory the decoder has"""

    def keep(self, n_tokens: int) -> None:
        """Of the tokens since the mark keep the first `n_tokens` and forget the rest"""


@dataclass(frozen=True, eq=False)
class OtherModel:
    """A second model that a strategy draws on."""

    tokenizer: Tokenizer | None
    vocab_size: int
    context_length: int
    step: Callable[[int], Step]  # room for so many new tokens -> a step with a cache of its own


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

    @property
    def limits(self) -> Tensor:
        """(B,) int64: how many tokens each row may still get"""
        return (self.context_length - self.lengths).clamp(0, self.max_new_tokens)

    def only(self, row: int) -> Request:
        """One row as a request of its own: without padding, with its own copy of what the stages remember."""
        start = self.token_ids.shape[1] - int(self.lengths[row])
        alone = replace(
            self,
            token_ids=self.token_ids[row : row + 1, start:],
            lengths=self.lengths[row : row + 1],
            chain=copy.deepcopy(self.chain),
            generators=self.generators[row : row + 1],
        )
        alone.reorder(torch.tensor([row], device=self.lengths.device))
        return alone

    def on_trial(self) -> Request:
        """The same with a copy of what the stages remember, to try out tokens that may not be taken."""
        return replace(self, chain=copy.deepcopy(self.chain))

    def shape(self, logits: Tensor, history: History) -> Tensor:
        """Logits (B, V) through the sampler chain, in float32."""
        logits = logits.float()
        for stage in self.chain:
            logits = stage.forward(logits, history)
        return logits

    def reorder(self, rows: Tensor) -> None:
        """What the stages keep by row follows `rows` (B',) int64."""
        for stage in self.chain:
            stage.reorder(rows)

    def ended(self, history: History) -> Tensor:
        """(B,) bool: rows whose last token is a stop token, or whose text a stage says is complete."""
        ended = torch.isin(history.token_ids[:, -1], self._stop)
        for stage in self.chain:
            complete = stage.ended(history)
            ended = ended if complete is None else ended | complete
        return ended

    @cached_property
    def _stop(self) -> Tensor:
        return torch.tensor(sorted(self.stop_ids), dtype=torch.int64, device=self.lengths.device)


class Decoding(Component, ABC):
    """A strategy: greedy, sampling, beam search, speculation. Built anew for each request.

    It may ask in its constructor for the model's `tokenizer` (None when there is none) and `vocab_size`, and for
    `open_model`, a function from a model directory to an `OtherModel` on the same device and in the same dtype.
    """

    kind = "decoding"
    told: ClassVar[tuple[str, ...]] = ("tokenizer", "vocab_size", "open_model")

    @abstractmethod
    def decode(self, step: Step, request: Request) -> Iterator[Tensor]:
        """Yield (B, n) int64 tokens in order as they become final, n >= 1; -1 marks a row that has ended.

        At most `max_new_tokens` in all. A stop token is yielded, then the row has ended. The caller may stop early.
        """

    def statistics(self, row: int) -> Mapping[str, float]:
        """Figures for people about how a row was decoded, such as how many drafted tokens were accepted."""
        return {}


def one_by_one(step: Step, request: Request, choose: Callable[[Tensor, Tensor], Tensor]) -> Iterator[Tensor]:
    """The loop of strategies that settle the next token of every row at a time.

    `choose(logits, rows) -> tokens` with logits (n, V) from the chain, rows (n,) the request's rows they belong to.
    A row that has ended leaves the batch: it would cost as much as the others, and could run past the context.
    """
    batch, start = request.token_ids.shape
    limits, lengths = request.limits, request.lengths
    rows = tokens = torch.arange(batch, device=limits.device)
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
            request.reorder(kept)
        logits = step.advance(tokens) if n_new else logits[kept]
        history = History(seen[:, : start + n_new], lengths + n_new, n_new)
        tokens = choose(request.shape(logits, history), rows)
        yield torch.full_like(limits, -1).scatter(0, rows, tokens).unsqueeze(1)
        seen[:, start + n_new] = tokens
        after = History(seen[:, : start + n_new + 1], lengths + n_new + 1, n_new + 1)
        going = ~request.ended(after) & (limits[rows] > n_new + 1)


def row_by_row(request: Request, decode: Callable[[int], Iterable[Sequence[int]]]) -> Iterator[Tensor]:
    """The loop of strategies whose rows do not keep step: one row after the other, `decode(row)` giving its tokens.

    A single row is passed on as it grows, several are when all are complete.
    """
    n_rows, device = len(request.token_ids), request.token_ids.device
    if n_rows == 1:
        yield from (torch.tensor([tokens], device=device) for tokens in decode(0) if len(tokens))
        return
    found = [[token for tokens in decode(row) for token in tokens] for row in range(n_rows)]
    longest = max(map(len, found), default=0)
    if longest:
        yield torch.tensor([[*tokens, *[-1] * (longest - len(tokens))] for tokens in found], device=device)


def uniforms(generators: Sequence[torch.Generator], device: torch.device) -> Iterator[Tensor]:
    """(B,) numbers in [0, 1) without end, row b's from `generators[b]`."""
    while True:
        # Drawn where the generators live and moved in blocks: the same numbers on every device, no wait per token.
        block = torch.stack([torch.rand(BLOCK, generator=g, device=g.device) for g in generators])
        yield from block.to(device).unbind(1)


def draw(probabilities: Tensor, numbers: Tensor) -> Tensor:
    """(B, V), (B,) -> (B,): the first token at which the running sum of probabilities exceeds the number."""
    total = probabilities.cumsum(-1)  # (B, V)
    # Rounded as it is, the product stays below the last sum for every number torch.rand gives, so some token is chosen.
    target = numbers.unsqueeze(1) * total[:, -1:]
    # The second condition matters where a sum made in parallel is not quite monotone.
    return ((total > target) & (probabilities > 0)).int().argmax(-1)
