"""Switch routing: p = softmax(W·x'), the one largest p_i chosen, its weight p_i itself.

Fedus et al. 2021, arXiv:2101.03961. In training x' is x times noise drawn evenly from 1 - jitter to 1 + jitter, and the
load-balance loss E · Σ_e f_e · P_e (f_e the fraction of tokens sent to expert e, P_e its mean probability; 1 when the
load is even) is added with weight 0.01. How many tokens an expert may take is the mixture's `capacity_factor`.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from lamina.core import (
    BALANCED_LOSS,
    Context,
    Register,
    Router,
    RouterLinear,
    RouterLossConfig,
    Routing,
    hookimpl,
    jitter,
    router_losses,
)


class SwitchConfig(RouterLossConfig):
    balance_loss: float = Field(0.01, ge=0, description="Weight of the load-balance loss; 0 is none.")
    jitter: float = Field(0.01, ge=0, lt=1, description="Noise on the router's input in training, up to this share.")


class Switch(Router):
    """One expert a token, weighed by its probability so that the router learns."""

    Config = SwitchConfig
    paper = "Fedus et al. 2021, arXiv:2101.03961"
    experts_per_token = 1
    balanced_loss: ClassVar[float] = BALANCED_LOSS

    def __init__(self, config: SwitchConfig, dim: int, n_experts: int) -> None:
        super().__init__()
        self.config = config
        self.linear = RouterLinear(dim, n_experts)

    def forward(self, x: Tensor, context: Context) -> Routing:
        if self.training and self.config.jitter:
            x = jitter(x, self.config.jitter)
        logits = self.linear(x)
        probabilities = logits.softmax(-1)  # (N, E)
        weights, indices = probabilities.max(-1, keepdim=True)  # (N, 1)
        routing = Routing(logits, probabilities, weights, indices)
        if self.training:
            routing.losses = router_losses(routing, self.config)
        return routing


@hookimpl
def register_components(register: Register) -> None:
    register("switch", Switch)
