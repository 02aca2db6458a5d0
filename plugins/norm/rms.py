"""RMSNorm: y = x / sqrt(mean(x²) + eps) · (offset + weight).  Zhang & Sennrich 2019, arXiv:1910.07467.

`offset: 1.0` is Gemma's form, in which the weight starts at zero and weight decay pulls the scale towards one.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from lamina.core import ComponentConfig, ConfigProblem, Norm, Program, Register, Rows, hookimpl


class RMSNormConfig(ComponentConfig):
    eps: float = Field(1e-6, gt=0, description="Added to mean(x²) before the root.")
    offset: float = Field(0.0, description="Added to the weight before it multiplies; the weight starts at 1 - offset.")
    affine: bool = Field(True, description="Learn a weight for each channel; false leaves the bare normalisation.")
    round_first: bool = Field(
        False,
        description="Round to the input's dtype before the weight multiplies, as Llama does, not after, as Gemma does.",
    )

    def derive(self) -> dict[str, object]:
        if self.offset and not self.affine:
            raise ConfigProblem("offset", "offset shifts a weight, and affine: false has none", "leave offset out")
        if self.round_first and not self.affine:
            raise ConfigProblem(
                "round_first", "round_first is about the weight, and affine: false has none", "leave round_first out"
            )
        return {}


class RMSNorm(Norm):
    """Scale each vector to unit root-mean-square; unlike LayerNorm it subtracts no mean."""

    Config = RMSNormConfig
    paper = "Zhang & Sennrich 2019, arXiv:1910.07467"

    def __init__(self, config: RMSNormConfig, size: int) -> None:
        super().__init__()
        self.eps, self.offset, self.shape = config.eps, config.offset, (size,)
        self.round_first = config.round_first
        self.weight = nn.Parameter(torch.full((size,), 1.0 - config.offset)) if config.affine else None

    def forward(self, x: Tensor) -> Tensor:
        if self.weight is None:
            return F.rms_norm(x, self.shape, None, self.eps)  # takes its mean in float32 whatever the dtype of x
        if self.round_first:
            weight = self.weight + self.offset if self.offset else self.weight
            return F.rms_norm(x, self.shape, None, self.eps) * weight.to(x.dtype)
        if not self.offset:
            return F.rms_norm(x, self.shape, self.weight.to(x.dtype), self.eps)
        wide = torch.promote_types(x.dtype, torch.float32)  # bfloat16 would round 1 + weight to a few values
        return F.rms_norm(x.to(wide), self.shape, self.weight.to(wide) + self.offset, self.eps).to(x.dtype)

    def lower(self, program: Program, x: Rows, *, out: Rows | None = None, heads: int = 1) -> Rows:
        weight = None if self.weight is None else self.weight.float() + self.offset
        return program.norm(x, "rms", self.eps, weight, out=out, heads=heads)


@hookimpl
def register_components(register: Register) -> None:
    register("rms", RMSNorm)
