"""Dynamic tanh: y = tanh(α · x) · weight + bias.  Zhu et al. 2025, arXiv:2503.10622."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from lamina.core import ComponentConfig, Norm, Register, hookimpl


class DyTConfig(ComponentConfig):
    alpha: float = Field(
        0.5,
        gt=0,
        description="α at the start. The paper takes a larger one before attention than elsewhere, "
        "and smaller ones the wider the model.",
    )
    bias: bool = Field(True, description="Learn a shift for each channel too.")


class DyT(Norm):
    """Squash large channels without any statistic of the vector: a stand-in for a norm."""

    Config = DyTConfig
    paper = "Zhu et al. 2025, arXiv:2503.10622"

    def __init__(self, config: DyTConfig, size: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(config.alpha))
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size)) if config.bias else None

    def forward(self, x: Tensor) -> Tensor:
        squashed = torch.tanh(self.alpha.to(x.dtype) * x)
        weight = self.weight.to(x.dtype)
        return squashed * weight if self.bias is None else torch.addcmul(self.bias.to(x.dtype), squashed, weight)


@hookimpl
def register_components(register: Register) -> None:
    register("dyt", DyT)
