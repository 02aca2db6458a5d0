"""ScaleNorm: y = g · x / ‖x‖, with one learned number g.  Nguyen & Salazar 2019, arXiv:1910.05895."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor, nn

from lamina.core import ComponentConfig, Norm, Register, hookimpl


class ScaleNormConfig(ComponentConfig):
    eps: float = Field(1e-5, gt=0, description="The least length a vector is divided by.")


class ScaleNorm(Norm):
    """Put every vector at one learned distance from zero, the square root of its size at first."""

    Config = ScaleNormConfig
    paper = "Nguyen & Salazar 2019, arXiv:1910.05895"

    def __init__(self, config: ScaleNormConfig, size: int) -> None:
        super().__init__()
        self.eps = config.eps
        self.weight = nn.Parameter(torch.tensor(math.sqrt(size)))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))  # a sum of bfloat16 squares is too coarse
        length: Tensor = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).clamp(min=self.eps)
        return (wide * (self.weight.to(wide.dtype) / length)).to(x.dtype)


@hookimpl
def register_components(register: Register) -> None:
    register("scale_norm", ScaleNorm)
