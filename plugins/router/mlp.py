"""A network routes: p = softmax(W₂·act(W₁·x + b₁)), the k largest p_i chosen, their weights p_i / Σ_chosen p · scale.

ZAYA1 (Zyphra 2025, arXiv:2511.17127) routes by such a network where others have one matrix. Groups and losses are those
of `softmax_top_k`.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor, nn

from lamina.core import (
    BALANCED_LOSS,
    Activation,
    Context,
    GroupedTopKConfig,
    Part,
    Register,
    Router,
    RouterLinear,
    RouterLossConfig,
    Routing,
    best_experts,
    hookimpl,
    router_losses,
    slot,
    weights_of,
)


class MLPRouterConfig(GroupedTopKConfig, RouterLossConfig):
    hidden_dim: int | None = Field(None, gt=0, description="Inner width; an eighth of dim when left out.")
    n_hidden: int = Field(1, gt=0, description="How many hidden layers there are.")
    activation: Part = slot("activation", "gelu", description="Applied after each hidden layer.")
    bias: bool = Field(True, description="Whether the hidden layers add a bias.")

    def derive(self, n_experts: int, dim: int) -> dict[str, Any]:  # type: ignore[override]
        found = super().derive(n_experts)
        return {"hidden_dim": max(1, dim // 8), **found} if self.hidden_dim is None else found


class MLPRouter(Router):
    """Can send apart tokens that no plane divides."""

    Config = MLPRouterConfig
    paper = "Zyphra 2025, arXiv:2511.17127"
    balanced_loss: ClassVar[float] = BALANCED_LOSS

    def __init__(self, config: MLPRouterConfig, dim: int, n_experts: int, activation: Activation) -> None:
        super().__init__()
        assert config.hidden_dim is not None  # derived
        self.config = config
        self.activation = activation
        self.hidden = nn.ModuleList(
            RouterLinear(config.hidden_dim if layer else dim, config.hidden_dim, bias=config.bias)
            for layer in range(config.n_hidden)
        )
        self.linear = RouterLinear(config.hidden_dim, n_experts)

    @property
    def experts_per_token(self) -> int:
        return self.config.experts_per_token

    @property
    def weight_sum(self) -> float | None:
        return self.config.weight_sum

    def forward(self, x: Tensor, context: Context) -> Routing:
        for layer in self.hidden:
            x = self.activation(layer(x))  # (N, F)
        logits = self.linear(x)
        probabilities = logits.softmax(-1)  # (N, E)
        indices = best_experts(probabilities, self.config)  # (N, k)
        routing = Routing(logits, probabilities, weights_of(probabilities, indices, self.config), indices)
        if self.training:
            routing.losses = router_losses(routing, self.config)
        return routing


@hookimpl
def register_components(register: Register) -> None:
    register("mlp", MLPRouter)
