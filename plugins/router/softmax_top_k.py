"""Top-k of a softmax: p = softmax(W·x), the k largest p_i chosen, their weights p_i / Σ_chosen p.

Shazeer et al. 2017, arXiv:1701.06538. Two optional losses keep it healthy in training:
  balance  E · Σ_e f_e · P_e, f_e the fraction of all N·k choices that fell on expert e, P_e its mean probability.
           Switch Transformer (Fedus et al. 2021, arXiv:2101.03961) for any k; 1 when the load is even, more when not.
  z        mean of logsumexp(logits)², which keeps logits small. ST-MoE (Zoph et al. 2022, arXiv:2202.08906).
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from lamina.core import Context, Register, Router, RouterLinear, Routing, TopKConfig, hookimpl


class SoftmaxTopKConfig(TopKConfig):
    balance_loss: float = Field(0.0, ge=0, description="Weight of the load-balance loss; 0.01 is usual, 0 is none.")
    z_loss: float = Field(0.0, ge=0, description="Weight of the z loss; 0.001 is usual, 0 is none.")


class SoftmaxTopK(Router):
    """Experts compete for each token; the winners share it by probability."""

    Config = SoftmaxTopKConfig
    paper = "Shazeer et al. 2017, arXiv:1701.06538"
    balanced_loss: ClassVar[float] = 1.0  # the balance loss, before its weight, of a perfectly even load

    def __init__(self, config: SoftmaxTopKConfig, dim: int, n_experts: int) -> None:
        super().__init__()
        self.config = config
        self.linear = RouterLinear(dim, n_experts)

    @property
    def experts_per_token(self) -> int:
        return self.config.experts_per_token

    def forward(self, x: Tensor, context: Context) -> Routing:
        logits = self.linear(x)
        probabilities = logits.softmax(-1)  # (N, E)
        weights, indices = probabilities.topk(self.experts_per_token, -1)  # (N, k)
        if self.config.renormalise:
            weights = weights / weights.sum(-1, keepdim=True)
        routing = Routing(logits, probabilities, weights, indices)
        if self.training:
            routing.losses = self._losses(routing)
        return routing

    def _losses(self, routing: Routing) -> dict[str, Tensor]:
        losses = {}
        if self.config.balance_loss:
            fractions = routing.load() / routing.indices.numel()  # (E,)
            even = routing.logits.shape[-1] * (fractions * routing.scores.mean(0)).sum()
            losses["router_balance"] = self.config.balance_loss * even
        if self.config.z_loss:
            losses["router_z"] = self.config.z_loss * routing.logits.logsumexp(-1).square().mean()
        return losses


@hookimpl
def register_components(register: Register) -> None:
    register("softmax_top_k", SoftmaxTopK)
