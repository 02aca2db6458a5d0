"""Group norm: each of n groups of channels scaled to unit root-mean-square, or centred too, by itself.

y = x_g / sqrt(mean(x_g²) + eps) · (offset + weight) + bias.  Wu & He 2018, arXiv:1803.08494; Zhang & Sennrich 2019,
arXiv:1910.07467, for the form that does not centre.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from lamina.core import ComponentConfig, ConfigProblem, Norm, Register, hookimpl


class GroupNormConfig(ComponentConfig):
    n_groups: int | None = Field(
        None, gt=0, le=65_536, description="Groups of neighbouring channels; as many as heads, say."
    )
    group_size: int | None = Field(
        None, gt=0, le=2**20, description="Channels in a group, instead of n_groups: the width of a head, say."
    )
    centre: bool = Field(False, description="Subtract each group's mean first, as GroupNorm does.")
    eps: float = Field(1e-6, gt=0, description="Added to mean(x²), or to the variance, before the root.")
    offset: float = Field(0.0, description="Added to the weight before it multiplies; the weight starts at 1 - offset.")
    affine: bool = Field(True, description="Learn a weight for each channel; false leaves the bare normalisation.")
    bias: bool = Field(False, description="Learn a shift for each channel too.")

    def derive(self, size: int) -> dict[str, object]:
        if (self.n_groups is None) == (self.group_size is None):
            raise ConfigProblem("n_groups", "groups are told by n_groups or by group_size", "give one of the two")
        field, number = ("n_groups", self.n_groups) if self.group_size is None else ("group_size", self.group_size)
        if size % (number or 1):
            divisors = [n for n in range(1, size + 1) if size % n == 0]
            raise ConfigProblem(
                field,
                f"size ({size}) must be a multiple of {field} ({number})",
                f"use one of {', '.join(map(str, divisors))}",
            )
        if self.bias and not self.affine:
            raise ConfigProblem(
                "bias", "affine: false leaves no place for a bias", "leave bias out, or set affine: true"
            )
        if self.offset and not self.affine:
            raise ConfigProblem("offset", "offset shifts a weight, and affine: false has none", "leave offset out")
        return {}


class GroupNorm(Norm):
    """A norm for each head of what several heads wrote side by side."""

    Config = GroupNormConfig
    paper = "Wu & He 2018, arXiv:1803.08494"

    def __init__(self, config: GroupNormConfig, size: int) -> None:
        super().__init__()
        self.n_groups = config.n_groups or size // (config.group_size or size)
        self.centre, self.eps, self.offset = config.centre, config.eps, config.offset
        self.shape = (size // self.n_groups,)
        self.weight = nn.Parameter(torch.full((size,), 1.0 - config.offset)) if config.affine else None
        self.bias = nn.Parameter(torch.zeros(size)) if config.bias else None

    def forward(self, x: Tensor) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        groups = wide.view(*x.shape[:-1], self.n_groups, -1)  # (..., n_groups, size / n_groups)
        normed = (F.layer_norm if self.centre else F.rms_norm)(groups, self.shape, eps=self.eps).flatten(-2)
        if self.weight is not None:
            normed = normed * (self.weight.to(wide.dtype) + self.offset)
        if self.bias is not None:
            normed = normed + self.bias.to(wide.dtype)
        return normed.to(x.dtype)


@hookimpl
def register_components(register: Register) -> None:
    register("group", GroupNorm)
