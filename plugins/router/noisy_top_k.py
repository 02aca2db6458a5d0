"""Noisy top-k: h = W·x + ε · softplus(V·x), ε ~ N(0, 1), the k largest h_i chosen, weights softmax over these h_i.

Shazeer et al. 2017, arXiv:1701.06538. The noise is drawn in training alone. Two losses even the load, each the square
of a coefficient of variation over the experts (variance / mean²), 0 when all are equal:
  importance  of Σ_x weight of expert i
  load        of Σ_x P(x, i), P(x, i) the chance that expert i would still be chosen were its own noise drawn anew:
              Φ((W·x)_i - the k-th largest of the other h) / softplus(V·x)_i), which unlike a count has a gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from lamina.core import (
    ComponentConfig,
    ConfigProblem,
    Context,
    Register,
    Router,
    RouterLinear,
    Routing,
    check_experts_per_token,
    hookimpl,
)


class NoisyTopKConfig(ComponentConfig):
    experts_per_token: int = Field(2, gt=0, description="How many experts each token goes to.")
    importance_loss: float = Field(0.1, ge=0, description="Weight of the importance loss; 0 is none.")
    load_loss: float = Field(0.1, ge=0, description="Weight of the load loss; 0 is none.")

    def derive(self, n_experts: int) -> dict[str, Any]:
        check_experts_per_token(self.experts_per_token, n_experts)
        for k, why in ((1, "one chosen expert has a weight of 1"), (n_experts, "nothing is chosen where all are")):
            if self.experts_per_token == k:
                raise ConfigProblem(
                    "experts_per_token",
                    f"{why}, so the router would learn nothing from it",
                    f"use more than 1 and fewer than n_experts ({n_experts})",
                )
        return {}


class NoisyTopK(Router):
    """Learned noise lets experts that nearly won be tried."""

    Config = NoisyTopKConfig
    paper = "Shazeer et al. 2017, arXiv:1701.06538"

    def __init__(self, config: NoisyTopKConfig, dim: int, n_experts: int) -> None:
        super().__init__()
        self.config = config
        self.linear = RouterLinear(dim, n_experts)
        self.noise = RouterLinear(dim, n_experts)

    @property
    def experts_per_token(self) -> int:
        return self.config.experts_per_token

    @property
    def weight_sum(self) -> float:
        return 1.0

    def forward(self, x: Tensor, context: Context) -> Routing:
        logits = scores = self.linear(x)  # (N, E)
        if not self.training:
            chosen, indices = scores.topk(self.experts_per_token, -1)  # (N, k)
            return Routing(logits, scores, chosen.softmax(-1), indices)
        deviation = F.softplus(self.noise(x)) + 1e-6  # it divides, and may underflow
        scores = logits + torch.randn_like(logits) * deviation
        best, order = scores.topk(self.experts_per_token + 1, -1)  # one more, whom a chosen one must beat
        indices = order[:, :-1]
        routing = Routing(logits, scores, best[:, :-1].softmax(-1), indices)
        if self.config.importance_loss:
            importance = torch.zeros_like(logits).scatter(-1, indices, routing.weights).sum(0)
            routing.losses["router_importance"] = self.config.importance_loss * _variation(importance)
        if self.config.load_loss:
            chosen_now = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, indices, True)
            rival = torch.where(chosen_now, best[:, -1:], best[:, -2:-1])  # the k-th largest of the others
            load = torch.special.ndtr((logits - rival) / deviation).sum(0)
            routing.losses["router_load"] = self.config.load_loss * _variation(load)
        return routing


def _variation(amounts: Tensor) -> Tensor:
    """(E,) -> the squared coefficient of variation"""
    return amounts.var(correction=0) / amounts.mean().square().clamp(min=1e-10)


@hookimpl
def register_components(register: Register) -> None:
    register("noisy_top_k", NoisyTopK)
