"""Greedy: keep only the most likely token, so that drawing has one outcome."""

from __future__ import annotations

import torch
from torch import Tensor

from lamina.core import History, Register, Sampler, hookimpl


class GreedySampler(Sampler):
    """Keep only the most likely token, the lowest id where several tie."""

    paper = "argmax"
    only_removes = keeps_best = forgetful = True

    def forward(self, logits: Tensor, history: History) -> Tensor:
        best = logits.argmax(-1, keepdim=True)  # (B, 1)
        return torch.full_like(logits, -torch.inf).scatter(-1, best, logits.gather(-1, best))


@hookimpl
def register_components(register: Register) -> None:
    register("greedy", GreedySampler)
