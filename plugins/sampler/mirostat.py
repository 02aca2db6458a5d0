"""Mirostat v2: remove tokens of surprise −log₂ p above μ; after each token of surprise s, μ ← μ − η · (s − τ).

Basu et al. 2020, arXiv:2007.14966. μ starts at 2τ; s is measured among the tokens left.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor

from lamina.core import ComponentConfig, History, Register, Sampler, hookimpl


class MirostatConfig(ComponentConfig):
    tau: float = Field(5.0, gt=0, le=100, description="τ: the surprise in bits that tokens are to have on average.")
    eta: float = Field(0.1, ge=0, le=10, description="η: how fast the threshold follows.")


class Mirostat(Sampler):
    """Hold the surprise of a text near a target, each row with a threshold of its own. It replaces top-k and top-p."""

    Config = MirostatConfig
    paper = "Basu et al. 2020, arXiv:2007.14966"
    only_removes = keeps_best = True

    def __init__(self, config: MirostatConfig) -> None:
        self.tau, self.eta = config.tau, config.eta
        self.mu: Tensor | None = None  # (B, 1)
        self.surprise: Tensor | None = None  # (B, V) of the tokens that were left at the last call

    def forward(self, logits: Tensor, history: History) -> Tensor:
        if self.mu is None:
            self.mu = logits.new_full((len(logits), 1), 2 * self.tau)
        elif self.surprise is not None:
            seen = self.surprise.gather(-1, history.token_ids[:, -1:])
            # A strategy may take a token that a later stage brought no probability; it tells nothing.
            self.mu = torch.where(seen.isfinite(), self.mu - self.eta * (seen - self.tau), self.mu)
        surprise = -logits.log_softmax(-1) / math.log(2)
        best = logits >= logits.amax(-1, keepdim=True)  # one token is left however small μ has become
        out = logits.masked_fill((surprise > self.mu) & ~best, -torch.inf)
        self.surprise = -out.log_softmax(-1) / math.log(2)
        return out

    def reorder(self, rows: Tensor) -> None:
        self.mu = None if self.mu is None else self.mu[rows]
        self.surprise = None if self.surprise is None else self.surprise[rows]


@hookimpl
def register_components(register: Register) -> None:
    register("mirostat", Mirostat)
