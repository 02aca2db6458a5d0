"""LayerNorm: y = (x - mean(x)) / sqrt(var(x) + eps) · (offset + weight) + bias.  Ba et al. 2016, arXiv:1607.06450.

`offset: 1.0` is Nemotron's form, in which the weight starts at zero and weight decay pulls the scale towards one.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from lamina.core import ComponentConfig, ConfigProblem, Norm, Program, Register, Rows, hookimpl


class LayerNormConfig(ComponentConfig):
    eps: float = Field(1e-5, gt=0, description="Added to the variance before the root.")
    offset: float = Field(0.0, description="Added to the weight before it multiplies; the weight starts at 1 - offset.")
    affine: bool = Field(True, description="Learn a weight for each channel; false leaves the bare normalisation.")
    bias: bool | None = Field(None, description="Learn a shift for each channel too. Default: as `affine`.")

    def derive(self) -> dict[str, bool]:
        if self.bias and not self.affine:
            raise ConfigProblem(
                "bias", "affine: false leaves no place for a bias", "leave bias out, or set affine: true"
            )
        if self.offset and not self.affine:
            raise ConfigProblem("offset", "offset shifts a weight, and affine: false has none", "leave offset out")
        return {"bias": self.affine} if self.bias is None else {}


class LayerNorm(Norm):
    """Centre each vector and scale it to unit variance."""

    Config = LayerNormConfig
    paper = "Ba et al. 2016, arXiv:1607.06450"

    def __init__(self, config: LayerNormConfig, size: int) -> None:
        super().__init__()
        self.eps, self.offset, self.shape = config.eps, config.offset, (size,)
        self.weight = nn.Parameter(torch.full((size,), 1.0 - config.offset)) if config.affine else None
        self.bias = nn.Parameter(torch.zeros(size)) if config.bias else None

    def forward(self, x: Tensor) -> Tensor:
        # bfloat16 would round 1 + weight to a few values.
        dtype = torch.promote_types(x.dtype, torch.float32) if self.offset else x.dtype
        weight = self.weight.to(dtype) if self.weight is not None else None
        if weight is not None and self.offset:
            weight = weight + self.offset
        bias = self.bias.to(dtype) if self.bias is not None else None
        return F.layer_norm(x.to(dtype), self.shape, weight, bias, self.eps).to(x.dtype)

    def lower(self, program: Program, x: Rows, *, out: Rows | None = None, heads: int = 1) -> Rows:
        weight = None if self.weight is None else self.weight.float() + self.offset
        return program.norm(x, "layer", self.eps, weight, self.bias, out=out, heads=heads)


@hookimpl
def register_components(register: Register) -> None:
    register("layer", LayerNorm)
