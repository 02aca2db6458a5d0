"""No repeated n-grams: a token that would complete n tokens that stand in the history already is removed.

Paulus et al. 2017, arXiv:1705.04304.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from lamina.core import ComponentConfig, History, Register, Sampler, hookimpl


class NoRepeatNgramConfig(ComponentConfig):
    n: int = Field(3, ge=1, description="No n tokens in a row come twice, the prompt's included.")


class NoRepeatNgram(Sampler):
    """Keep a text from repeating any n tokens; where every token left would, they all stay."""

    Config = NoRepeatNgramConfig
    paper = "Paulus et al. 2017, arXiv:1705.04304"
    only_removes = True

    def __init__(self, config: NoRepeatNgramConfig) -> None:
        self.n = config.n

    def forward(self, logits: Tensor, history: History) -> Tensor:
        ids, n = history.token_ids, self.n
        length = ids.shape[1]
        if length < n:
            return logits
        grams = ids.unfold(1, n, 1)  # (B, L - n + 1, n)
        same = (grams[..., :-1] == ids[:, None, length - n + 1 :]).all(-1)
        same &= history.mask()[:, : length - n + 1]  # no n-gram begins in the padding
        repeats = torch.zeros(logits.shape, device=logits.device)
        repeats.scatter_add_(1, grams[..., -1], same.float())
        out = logits.masked_fill(repeats > 0, -torch.inf)
        return torch.where((out > -torch.inf).any(-1, keepdim=True), out, logits)


@hookimpl
def register_components(register: Register) -> None:
    register("no_repeat_ngram", NoRepeatNgram)
