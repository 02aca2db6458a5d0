"""DRY: logit − multiplier · base^(m − allowed_length) for a token that would extend a repetition of m ≥ allowed_length
tokens: the last m tokens stand earlier in the text too, and the token follows them there.

Weidmann 2024, oobabooga/text-generation-webui#5677.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor

from lamina.core import ComponentConfig, ConfigProblem, DataError, History, Register, Sampler, Tokenizer, hookimpl

LARGEST = 1e6  # more than any logit, and a number that no later stage turns into infinity


class DRYConfig(ComponentConfig):
    multiplier: float = Field(0.8, ge=0, le=100, description="Penalty of a repetition just longer than is allowed.")
    base: float = Field(1.75, ge=1, le=100, description="How much the penalty grows with each further token.")
    allowed_length: int = Field(2, ge=1, description="Tokens in a row that may come again before it costs anything.")
    range: int | None = Field(None, ge=1, description="Look at so many last tokens only; null: at the whole text.")
    sequence_breakers: list[str] = Field(
        ["\n", ":", '"', "*"],
        description="No repetition is followed across a token that holds one of these, or penalised for it.",
    )


class DRY(Sampler):
    """Discourage repeating what was said, the more the longer the repetition, prompt included."""

    Config = DRYConfig
    paper = "Weidmann 2024, oobabooga/text-generation-webui#5677"
    removes_none = True

    def __init__(self, config: DRYConfig, tokenizer: Tokenizer | None, vocab_size: int) -> None:
        self.config = config
        self.breaks = torch.zeros(vocab_size, dtype=torch.bool)  # (V,)
        breaking = _breaking(config.sequence_breakers, tokenizer)
        self.breaks[[token for token in breaking if token < vocab_size]] = True

    def forward(self, logits: Tensor, history: History) -> Tensor:
        if self.breaks.device != logits.device:
            self.breaks = self.breaks.to(logits.device)
        length = history.token_ids.shape[1]
        start = max(0, length - (self.config.range or length))
        tokens, real = history.token_ids[:, start:], history.mask()[:, start:]  # (B, L)
        follows = tokens[:, 1:]  # what follows each token but the last
        matched = self._matched(tokens, real & ~self.breaks[tokens])
        matched = matched.masked_fill(self.breaks[follows], 0)
        longest = torch.zeros(logits.shape, dtype=torch.int64, device=logits.device)
        longest.scatter_reduce_(1, follows, matched, "amax")  # (B, V)
        over = (longest - self.config.allowed_length).double()
        # As a logarithm, which a long repetition does not carry beyond what a number can hold.
        size = over * math.log(self.config.base) + math.log(max(self.config.multiplier, 1e-300))
        penalty = size.clamp(max=math.log(LARGEST)).exp().float()
        return torch.where((over >= 0) & (longest > 0), logits - penalty, logits)

    def _matched(self, tokens: Tensor, counted: Tensor) -> Tensor:
        """(B, L - 1) int64: how many tokens up to each but the last are those that the text ends with."""
        last = tokens.shape[1] - 1
        matched = torch.zeros_like(tokens[:, :last])
        going = torch.ones_like(matched, dtype=torch.bool)
        for back in range(last):
            # Of the token at i, the one `back` before it against the one `back` before the last.
            same = (tokens[:, : last - back] == tokens[:, last - back, None]) & counted[:, last - back, None]
            going = going[:, 1:] if back else going
            going = going & same & counted[:, : last - back]
            if not bool(going.any()):
                break
            matched[:, back:] += going
        return matched


def _breaking(breakers: list[str], tokenizer: Tokenizer | None) -> set[int]:
    """The tokens that hold one of `breakers`."""
    if not breakers:
        return set()
    if tokenizer is None:
        hint = "write sequence_breakers: []"
        raise ConfigProblem("sequence_breakers", "a model without a tokenizer has no texts to break at", hint)
    ids = range(tokenizer.vocab_size)
    texts = [piece or b"" for piece in tokenizer.token_bytes(ids)]
    found: set[int] = set()
    for breaker in breakers:
        if not breaker:
            raise ConfigProblem("sequence_breakers", "an empty text breaks nothing", "leave it out")
        holding = {token for token in ids if breaker.encode() in texts[token]}
        if not holding and _can_occur(breaker, tokenizer):
            raise ConfigProblem(
                "sequence_breakers",
                f"no token of the tokenizer holds '{breaker}'",
                "name a part of it, or leave it out",
            )
        found |= holding
    return found


def _can_occur(text: str, tokenizer: Tokenizer) -> bool:
    try:
        return bool(tokenizer.encode(text))
    except DataError:
        return False


@hookimpl
def register_components(register: Register) -> None:
    register("dry", DRY)
