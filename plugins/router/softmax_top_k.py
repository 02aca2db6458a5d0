"""Top-k of a softmax: p = softmax(W·x), the k largest p_i chosen, their weights p_i / Σ_chosen p · scale.

Shazeer et al. 2017, arXiv:1701.06538. With groups, only experts of the best groups may be chosen (DeepSeek-V2,
arXiv:2405.04434). Two optional losses keep it healthy in training:
  balance  E · Σ_e f_e · P_e, f_e the fraction of all N·k choices that fell on expert e, P_e its mean probability.
           Switch Transformer (Fedus et al. 2021, arXiv:2101.03961) for any k; 1 when the load is even, more when not.
  z        mean of logsumexp(logits)², which keeps logits small. ST-MoE (Zoph et al. 2022, arXiv:2202.08906).
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from lamina.core import (
    BALANCED_LOSS,
    CannotLower,
    Context,
    GroupedTopKConfig,
    Program,
    Register,
    Router,
    RouterLinear,
    RouterLossConfig,
    Routing,
    Rows,
    best_experts,
    hookimpl,
    jitter,
    router_losses,
    weights_of,
)


class SoftmaxTopKConfig(GroupedTopKConfig, RouterLossConfig):
    jitter: float = Field(0.0, ge=0, lt=1, description="Noise on the router's input in training, up to this share.")


class SoftmaxTopK(Router):
    """Experts compete for each token; the winners share it by probability."""

    Config = SoftmaxTopKConfig
    paper = "Shazeer et al. 2017, arXiv:1701.06538"
    balanced_loss: ClassVar[float] = BALANCED_LOSS  # before its weight, of a perfectly even load

    def __init__(self, config: SoftmaxTopKConfig, dim: int, n_experts: int) -> None:
        super().__init__()
        self.config = config
        self.linear = RouterLinear(dim, n_experts)

    @property
    def experts_per_token(self) -> int:
        return self.config.experts_per_token

    @property
    def weight_sum(self) -> float | None:
        return self.config.weight_sum

    def forward(self, x: Tensor, context: Context) -> Routing:
        if self.training and self.config.jitter:
            x = jitter(x, self.config.jitter)
        logits = self.linear(x)
        probabilities = logits.softmax(-1)  # (N, E)
        indices = best_experts(probabilities, self.config)  # (N, k)
        routing = Routing(logits, probabilities, weights_of(probabilities, indices, self.config), indices)
        if self.training:
            routing.losses = router_losses(routing, self.config)
        return routing

    def lower(self, program: Program, x: Rows) -> None:
        config = self.config
        if config.n_groups > 1:
            raise CannotLower("groups of experts")
        logits, k = program.linear(x, self.linear), config.experts_per_token
        program.route(logits, "softmax_top_k", k, renormalise=config.renormalise, scale=config.scale)


@hookimpl
def register_components(register: Register) -> None:
    register("softmax_top_k", SoftmaxTopK)
