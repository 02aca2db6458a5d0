"""Swish: y = x · σ(beta · x).  Ramachandran, Zoph & Le 2017, arXiv:1710.05941.

beta 1 is SiLU, 1.702 quick GELU; a large beta comes close to ReLU.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from lamina.core import Activation, ComponentConfig, Register, hookimpl


class SwishConfig(ComponentConfig):
    beta: float = Field(1.0, description="Multiplies x inside the sigmoid.")
    learned: bool = Field(True, description="Train beta, one number for each place of use, from this start.")


class Swish(Activation):
    """SiLU with a sharpness of its own."""

    Config = SwishConfig
    paper = "Ramachandran et al. 2017, arXiv:1710.05941"

    def __init__(self, config: SwishConfig) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.tensor(config.beta)) if config.learned else config.beta

    def forward(self, x: Tensor) -> Tensor:
        beta = self.beta.to(x.dtype) if isinstance(self.beta, Tensor) else self.beta
        return x * torch.sigmoid(beta * x)


@hookimpl
def register_components(register: Register) -> None:
    register("swish", Swish)
