"""xIELU: y = a₊x² + βx where x > 0, a₋(eˣ - 1 - x) + βx elsewhere.  Huang & Schlag 2024, arXiv:2411.13010.

a₊ = softplus(alpha_p) and a₋ = β + softplus(alpha_n) are learned; Apertus uses it in an ungated ffn.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from lamina.core import Activation, ComponentConfig, ConfigProblem, Register, hookimpl


class XIELUConfig(ComponentConfig):
    positive: float = Field(0.8, gt=0, description="a₊ at the start: the curvature above zero.")
    negative: float = Field(0.8, gt=0, description="a₋ at the start: the depth below zero, above `beta`.")
    beta: float = Field(0.5, description="The slope at zero.")

    def derive(self) -> dict[str, float]:
        if self.negative <= self.beta:
            raise ConfigProblem(
                "negative", f"negative ({self.negative}) must be above beta ({self.beta})", "a₋ is beta plus a softplus"
            )
        return {}


class XIELU(Activation):
    """Its gradient grows in a line above zero and falls below zero, at a rate that training finds."""

    Config = XIELUConfig
    paper = "Huang & Schlag 2024, arXiv:2411.13010"

    def __init__(self, config: XIELUConfig) -> None:
        super().__init__()
        self.beta = config.beta
        self.alpha_p = nn.Parameter(torch.full((1,), math.log(math.expm1(config.positive))))
        self.alpha_n = nn.Parameter(torch.full((1,), math.log(math.expm1(config.negative - config.beta))))

    def forward(self, x: Tensor) -> Tensor:
        positive = F.softplus(self.alpha_p).to(x.dtype)
        negative = (self.beta + F.softplus(self.alpha_n)).to(x.dtype)
        # Bounded, or the gradient of the branch not taken would be infinite for a large x, and 0 · ∞ is no number.
        below = torch.expm1(x.clamp(max=-1e-6)) - x
        return torch.where(x > 0, positive * x * x, negative * below) + self.beta * x


@hookimpl
def register_components(register: Register) -> None:
    register("xielu", XIELU)
