"""Softmax of the top k: the k largest logits of W·x + b chosen, their weights softmax over the chosen logits alone.

Mixtral (Jiang et al. 2024, arXiv:2401.04088), gpt-oss (OpenAI 2025, arXiv:2508.10925) with b. The weights are those of
a softmax over all experts that is renormalised over the chosen. The losses are those of `softmax_top_k`.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor

from lamina.core import (
    BALANCED_LOSS,
    ConfigProblem,
    Context,
    Program,
    Register,
    Router,
    RouterLinear,
    RouterLossConfig,
    Routing,
    Rows,
    check_experts_per_token,
    hookimpl,
    router_losses,
)


class TopKSoftmaxConfig(RouterLossConfig):
    experts_per_token: int = Field(2, gt=0, description="How many experts each token goes to.")
    bias: bool = Field(False, description="Whether the logits have a learned bias.")

    def derive(self, n_experts: int) -> dict[str, Any]:
        check_experts_per_token(self.experts_per_token, n_experts)
        if self.experts_per_token == 1:
            raise ConfigProblem(
                "experts_per_token",
                "a softmax over a single chosen logit is always 1, so the router would learn nothing",
                "choose two or more, or use a router that weighs by probability, such as switch",
            )
        return {}


class TopKSoftmax(Router):
    """Chooses first and then lets only the chosen compete."""

    Config = TopKSoftmaxConfig
    paper = "Jiang et al. 2024, arXiv:2401.04088"
    balanced_loss: ClassVar[float] = BALANCED_LOSS

    def __init__(self, config: TopKSoftmaxConfig, dim: int, n_experts: int) -> None:
        super().__init__()
        self.config = config
        self.linear = RouterLinear(dim, n_experts, bias=config.bias)

    @property
    def experts_per_token(self) -> int:
        return self.config.experts_per_token

    @property
    def weight_sum(self) -> float:
        return 1.0

    def forward(self, x: Tensor, context: Context) -> Routing:
        logits = self.linear(x)  # (N, E)
        chosen, indices = logits.topk(self.experts_per_token, -1)  # (N, k)
        routing = Routing(logits, logits, chosen.softmax(-1), indices)
        if self.training:
            routing.losses = router_losses(routing, self.config)
        return routing

    def lower(self, program: Program, x: Rows) -> None:
        program.route(program.linear(x, self.linear), "top_k_softmax", self.experts_per_token)


@hookimpl
def register_components(register: Register) -> None:
    register("top_k_softmax", TopKSoftmax)
