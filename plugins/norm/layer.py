"""LayerNorm: y = (x - mean(x)) / sqrt(var(x) + eps) · weight + bias.  Ba et al. 2016, arXiv:1607.06450."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from lamina.core import ComponentConfig, ConfigProblem, Norm, Register, hookimpl


class LayerNormConfig(ComponentConfig):
    eps: float = Field(1e-5, gt=0, description="Added to the variance before the root.")
    affine: bool = Field(True, description="Learn a weight for each channel; false leaves the bare normalisation.")
    bias: bool | None = Field(None, description="Learn a shift for each channel too. Default: as `affine`.")

    def derive(self) -> dict[str, bool]:
        if self.bias and not self.affine:
            raise ConfigProblem(
                "bias", "affine: false leaves no place for a bias", "leave bias out, or set affine: true"
            )
        return {"bias": self.affine} if self.bias is None else {}


class LayerNorm(Norm):
    """Centre each vector and scale it to unit variance."""

    Config = LayerNormConfig
    paper = "Ba et al. 2016, arXiv:1607.06450"

    def __init__(self, config: LayerNormConfig, size: int) -> None:
        super().__init__()
        self.eps, self.shape = config.eps, (size,)
        self.weight = nn.Parameter(torch.ones(size)) if config.affine else None
        self.bias = nn.Parameter(torch.zeros(size)) if config.bias else None

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.to(x.dtype) if self.weight is not None else None
        bias = self.bias.to(x.dtype) if self.bias is not None else None
        return F.layer_norm(x, self.shape, weight, bias, self.eps)


@hookimpl
def register_components(register: Register) -> None:
    register("layer", LayerNorm)
