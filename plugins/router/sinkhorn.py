"""Sinkhorn routing: in training a plan is chosen from, Π = diag(u)·exp(W·x)·diag(v) with u and v such that every token
gives 1 and every expert takes N / E; the k largest Π_i of a token are its experts. Outside training the largest logits.

S-BASE, Clark et al. 2022, arXiv:2202.01169, after the assignment of BASE layers (Lewis et al. 2021, arXiv:2103.16716).
The plan is found by scaling columns and rows in turn (Sinkhorn & Knopp 1967) and passes no gradient; weights are scores
of the logits. So the load is even in training without a loss. There a token's experts depend on all tokens of the
batch, later ones too; in evaluation and generation on the token alone.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from lamina.core import SCORES, Context, Register, Router, RouterLinear, Routing, TopKConfig, hookimpl


class SinkhornConfig(TopKConfig):
    experts_per_token: int = Field(1, gt=0, description="How many experts each token goes to.")
    renormalise: bool = Field(False, description="Whether the chosen experts' weights are scaled to sum to one.")
    score: Literal["sigmoid", "softmax"] = Field("sigmoid", description="What weighs the chosen, of their logits.")
    iterations: int = Field(8, gt=0, le=1000, description="How often columns and rows are scaled in training.")


class Sinkhorn(Router):
    """Gives every expert about as many tokens, at the least cost to the router's preferences."""

    Config = SinkhornConfig
    paper = "Clark et al. 2022, arXiv:2202.01169"

    def __init__(self, config: SinkhornConfig, dim: int, n_experts: int) -> None:
        super().__init__()
        self.config = config
        self.linear = RouterLinear(dim, n_experts)

    @property
    def experts_per_token(self) -> int:
        return self.config.experts_per_token

    @property
    def weight_sum(self) -> float | None:
        return 1.0 if self.config.renormalise else None

    def forward(self, x: Tensor, context: Context) -> Routing:
        logits = self.linear(x)
        scores = self._log_plan(logits.detach()) if self.training else logits  # (N, E)
        indices = scores.topk(self.experts_per_token, -1).indices  # (N, k)
        weights = SCORES[self.config.score](logits).gather(-1, indices)
        if self.config.renormalise:
            weights = weights / weights.sum(-1, keepdim=True).clamp(min=1e-20)
        return Routing(logits, scores, weights, indices)

    def _log_plan(self, logits: Tensor) -> Tensor:
        """(N, E) -> (N, E): logarithms, because exp(W·x) may overflow. A column's sum is N / E up to a factor that all
        have in common and the next scaling of rows takes away."""
        plan = logits
        for _ in range(self.config.iterations):
            plan = plan - plan.logsumexp(1, keepdim=True)
            plan = plan - plan.logsumexp(0, keepdim=True)
        return torch.log_softmax(plan, 1)


@hookimpl
def register_components(register: Register) -> None:
    register("sinkhorn", Sinkhorn)
