"""The loop of strategies that guess several tokens and check them in one call of the decoder.

A guess x drawn from q is taken with probability min(1, p(x) / q(x)), else replaced by a draw from max(p - q, 0)
normalised; so every token has the distribution p that the chain leaves of the decoder's own logits. Leviathan et al.
2022, arXiv:2211.17192.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lamina.core.decoding import Decoding, Request, Step, draw, row_by_row, uniforms
from lamina.core.sampler import History


class Drafter(Protocol):
    """Guesses how one row goes on."""

    def guess(self, request: Request, history: History, most: int) -> tuple[Sequence[int], Tensor | None]:
        """At most `most` tokens that may follow `history`, and what each was drawn from (n, V); None: it was certain.

        `request` is the row's own; its stages must not be called but in a copy, `request.on_trial()`.
        """


@dataclass
class Tally:
    """How one row's guesses fared."""

    drafted: int = 0
    accepted: int = 0
    decoder_calls: int = 0
    tokens: int = 0


class Speculation(Decoding):
    """A strategy that guesses and checks, with a drafter of its own for each row."""

    def __init__(self) -> None:
        self.tallies: dict[int, Tally] = {}

    @abstractmethod
    def drafter(self, request: Request) -> Drafter:
        """For a request of a single row."""

    def decode(self, step: Step, request: Request) -> Iterator[Tensor]:
        return row_by_row(request, lambda row: self._row(step, request, row))

    def statistics(self, row: int) -> Mapping[str, float]:
        tally = self.tallies.get(row, Tally())
        return {
            "drafted": tally.drafted,
            "accepted": tally.accepted,
            "acceptance_rate": tally.accepted / tally.drafted if tally.drafted else 0.0,
            "decoder_calls": tally.decoder_calls,
            "tokens_per_call": tally.tokens / tally.decoder_calls if tally.decoder_calls else 0.0,
        }

    def _row(self, step: Step, request: Request, row: int) -> Iterator[list[int]]:
        limit, tally = int(request.limits[row]), Tally()
        if limit == 0:
            return
        self.tallies[row] = tally
        alone = request.only(row)
        text, drafter = _Text(alone, limit), self.drafter(alone)
        logits = step.start(alone.token_ids, alone.lengths).unsqueeze(1)  # (1, 1, V)
        guess: Sequence[int] = ()
        drawn_from: Tensor | None = None
        while True:
            new, n_accepted = text.check(logits, guess, drawn_from)
            tally.decoder_calls += 1
            tally.drafted += len(guess)
            tally.accepted += n_accepted
            tally.tokens += len(new)
            yield new
            if text.ended:
                return
            if tally.decoder_calls > 1:
                step.keep(1 + n_accepted)
            guess, drawn_from = drafter.guess(alone, text.history, limit - text.n_new - 1)
            step.mark(1 + len(guess))
            logits = step.advance_many(torch.tensor([[new[-1], *guess]], device=logits.device))


class _Text:
    """A row as it grows."""

    def __init__(self, request: Request, limit: int) -> None:
        self.request, self.limit, self.n_new, self.ended = request, limit, 0, False
        self.start = request.token_ids.shape[1]
        self.seen = request.token_ids.new_zeros(1, self.start + limit)  # (1, L + limit)
        self.seen[:, : self.start] = request.token_ids
        self.numbers = uniforms(request.generators, request.token_ids.device)

    @property
    def history(self) -> History:
        return History(self.seen[:, : self.start + self.n_new], self.request.lengths + self.n_new, self.n_new)

    def check(self, logits: Tensor, guess: Sequence[int], drawn_from: Tensor | None) -> tuple[list[int], int]:
        """Logits (1, n + 1, V) before each of n guesses and after the last -> the tokens taken, and how many of them
        were guesses. The stages are called for tokens that are taken and for no others."""
        new: list[int] = []
        for at in range(len(guess) + 1):
            p = self.request.shape(logits[:, at], self.history).softmax(-1)  # (1, V)
            token, accepted = None, False
            if at < len(guess):
                q = torch.zeros_like(p) if drawn_from is None else drawn_from[at : at + 1]
                if drawn_from is None:
                    q[0, guess[at]] = 1
                accepted = bool(next(self.numbers) * q[0, guess[at]] < p[0, guess[at]])
                if accepted:
                    token = guess[at]
                else:
                    rest = (p - q).clamp(min=0)
                    p = rest if bool(rest.sum() > 0) else p  # equal but for rounding
            new.append(int(draw(p, next(self.numbers))) if token is None else token)
            self.seen[0, self.start + self.n_new] = new[-1]
            self.n_new += 1
            self.ended = bool(self.request.ended(self.history)) or self.n_new == self.limit
            if self.ended or not accepted:
                return new, at + accepted
        raise AssertionError("the token after the last guess is none")
