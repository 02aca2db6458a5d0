"""Lion: steps of one size, in the sign of a mean of gradients.  Chen et al. 2023, arXiv:2302.06675.

c = β₁m + (1-β₁)g,  w ← w - lr · (sign(c) + weight_decay · w),  m ← β₂m + (1-β₂)g.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn

from lamina.core import ComponentConfig, Optimizer, Register, decay_groups, hookimpl

Beta = Annotated[float, Field(ge=0, lt=1)]


class LionConfig(ComponentConfig):
    # Not strict: YAML has lists and no tuples.
    betas: tuple[Beta, Beta] = Field(
        (0.9, 0.99), strict=False, description="Share of the mean in the step's direction, and its decay."
    )
    weight_decay: float = Field(1.0, ge=0, description="Pull of matrices towards zero, times the learning rate.")


class Lion(Optimizer):
    """One mean a weight where Adam keeps two. Wants a learning rate 3 to 10 times smaller than AdamW's and a decay as
    many times larger. Gains and biases are not decayed."""

    Config = LionConfig
    paper = "Chen et al. 2023, arXiv:2302.06675"

    def __init__(self, config: LionConfig) -> None:
        self.config = config

    def make(self, parameters: Iterable[tuple[str, nn.Parameter]], learning_rate: float) -> torch.optim.Optimizer:
        groups = decay_groups(parameters, self.config.weight_decay)
        return SignedMean(groups, {"lr": learning_rate, "betas": self.config.betas})


class SignedMean(torch.optim.Optimizer):
    """The update above, for all parameters of a group at once."""

    def __init__(self, groups: list[dict[str, Any]], defaults: dict[str, Any]) -> None:
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not weights:
                continue
            gradients = [weight.grad for weight in weights]
            for weight in weights:
                if "mean" not in self.state[weight]:
                    self.state[weight]["mean"] = torch.zeros_like(weight)
            means = [self.state[weight]["mean"] for weight in weights]
            beta1, beta2 = group["betas"]
            directions = torch._foreach_lerp(means, gradients, 1 - beta1)
            torch._foreach_sign_(directions)
            torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(weights, directions, alpha=-group["lr"])
            torch._foreach_lerp_(means, gradients, 1 - beta2)
        return loss


@hookimpl
def register_components(register: Register) -> None:
    register("lion", Lion)
