"""Speculative decoding: a small draft model guesses, the decoder checks all guesses in one call.

Leviathan et al. 2022, arXiv:2211.17192; Chen et al. 2023, arXiv:2302.01318.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from lamina.core import (
    ComponentConfig,
    Drafter,
    GenerationError,
    History,
    OtherModel,
    Register,
    Request,
    Speculation,
    Tokenizer,
    draw,
    hookimpl,
    uniforms,
)


class SpeculativeConfig(ComponentConfig):
    draft: str = Field(description="The draft model: a model directory or a run directory, with the same tokens.")
    n_draft: int = Field(4, ge=1, description="How many tokens are guessed at a time, at most.")


class Speculative(Speculation):
    """Several tokens a call where the draft model agrees; the distribution of each stays as it was.

    Draft model and decoder are read through the same sampler chain. Rows are decoded one after the other.
    """

    Config = SpeculativeConfig
    paper = "Leviathan et al. 2022, arXiv:2211.17192"

    def __init__(
        self,
        config: SpeculativeConfig,
        tokenizer: Tokenizer | None,
        vocab_size: int,
        open_model: Callable[[str], OtherModel],
    ) -> None:
        super().__init__()
        self.config, self.vocab_size = config, vocab_size
        self.draft = open_model(config.draft)
        if why := _difference(tokenizer, vocab_size, self.draft):
            raise GenerationError(
                f"the draft model '{config.draft}' {why}",
                hint="a draft model needs the decoder's own tokenizer: train it with the same one",
            )

    def drafter(self, request: Request) -> Drafter:
        return _DraftModel(self.draft, request, self.config.n_draft, self.vocab_size)


def _difference(tokenizer: Tokenizer | None, vocab_size: int, draft: OtherModel) -> str:
    """Why an id of the draft model is not the same token of the decoder, "" when it is."""
    other = draft.tokenizer
    if tokenizer is None or other is None:
        if tokenizer is not other:
            return f"has {'a' if tokenizer is None else 'no'} tokenizer, unlike the decoder"
        same = draft.vocab_size == vocab_size
        return "" if same else f"has a vocabulary of {draft.vocab_size:,}, the decoder one of {vocab_size:,}"
    if other.vocab_size != tokenizer.vocab_size:
        return f"has a tokenizer of {other.vocab_size:,} tokens, the decoder one of {tokenizer.vocab_size:,}"
    ours, theirs = (one.token_bytes(range(one.vocab_size)) for one in (tokenizer, other))
    wrong = next((token for token, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1]), None)
    if wrong is not None:
        (a,), (b,) = tokenizer.token_texts([wrong]), other.token_texts([wrong])
        return f"has another tokenizer: its token {wrong} is '{b}', the decoder's '{a}'"
    return "" if other.special_ids == tokenizer.special_ids else "has a tokenizer with other special tokens"


class _DraftModel:
    """Guesses by sampling from the draft model, through a copy of the chain."""

    def __init__(self, draft: OtherModel, request: Request, n_draft: int, vocab_size: int) -> None:
        self.n_draft, self.vocab_size = n_draft, vocab_size
        self.start = request.token_ids.shape[1]
        self.room = min(request.max_new_tokens, draft.context_length - self.start)  # new tokens it can read
        self.step = draft.step(max(0, self.room))
        self.numbers = uniforms(request.generators, request.token_ids.device)
        self.guessed: list[int] = []
        self.fed = -1  # new tokens the draft model has read, -1 before the prompt

    def guess(self, request: Request, history: History, most: int) -> tuple[Sequence[int], Tensor | None]:
        n_new = history.n_generated
        most = min(most, self.n_draft, self.room - n_new + 1)
        if most < 1:
            return [], None
        logits = self._catch_up(history)
        trial, seen = request.on_trial(), history.token_ids
        guessed: list[int] = []
        drawn_from: list[Tensor] = []
        self.step.mark(most - 1)
        while True:
            here = History(seen, history.lengths + len(guessed), n_new + len(guessed))
            q = trial.shape(_fit(logits, self.vocab_size), here).softmax(-1)  # (1, V)
            token = draw(q, next(self.numbers))  # (1,)
            guessed.append(int(token))
            drawn_from.append(q)
            seen = torch.cat([seen, token.unsqueeze(1)], 1)
            after = History(seen, history.lengths + len(guessed), n_new + len(guessed))
            if len(guessed) == most or bool(trial.ended(after)):
                break
            logits = self.step.advance(token)
        self.guessed, self.fed = guessed, n_new + len(guessed) - 1
        return guessed, torch.cat(drawn_from)

    def _catch_up(self, history: History) -> Tensor:
        """Logits (1, V) after `history`, whatever of it the draft model has read or guessed otherwise."""
        n_new, tokens = history.n_generated, history.token_ids
        if self.fed < 0:
            logits = self.step.start(tokens[:, : self.start], history.lengths - n_new)
            self.fed = 0
        else:
            taken: list[int] = tokens[0, self.start + self.fed - len(self.guessed) + 1 :].tolist()
            known = self.guessed[:-1]  # the last guess has not been read
            same = next(
                (at for at, pair in enumerate(zip(known, taken, strict=False)) if pair[0] != pair[1]), len(known)
            )
            self.step.keep(same)
            self.fed += same - len(known)
        unread = tokens[:, self.start + self.fed :]
        if unread.shape[1]:
            logits = self.step.advance_many(unread)[:, -1]
        self.fed = n_new
        return logits


def _fit(logits: Tensor, vocab_size: int) -> Tensor:
    """(1, V') -> (1, V): vocabularies of one tokenizer may be padded to different sizes."""
    return F.pad(logits, (0, max(0, vocab_size - logits.shape[1])), value=-torch.inf)[:, :vocab_size]


@hookimpl
def register_components(register: Register) -> None:
    register("speculative", Speculative)
