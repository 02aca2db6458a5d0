"""L2 normalisation: y = x / sqrt(Σ x² + eps), a vector of length one.

Henry et al. 2020, arXiv:2010.04245, for queries and keys.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from lamina.core import ComponentConfig, Norm, Register, hookimpl


class L2NormConfig(ComponentConfig):
    eps: float = Field(1e-6, gt=0, description="Added to Σ x² before the root.")


class L2Norm(Norm):
    """Keep the direction alone. `rms` with `affine: false` gives vectors that are sqrt(size) times as long."""

    Config = L2NormConfig
    paper = "Henry et al. 2020, arXiv:2010.04245"

    def __init__(self, config: L2NormConfig) -> None:
        super().__init__()
        self.eps = config.eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))  # a sum of bfloat16 squares is too coarse
        return (wide * torch.rsqrt(wide.square().sum(-1, keepdim=True) + self.eps)).to(x.dtype)


@hookimpl
def register_components(register: Register) -> None:
    register("l2", L2Norm)
