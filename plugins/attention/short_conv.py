"""Gated short convolution: y = out(c · conv(b · x)), with b, c and x three projections of the input.

Liquid AI 2025, arXiv:2511.23404 (LFM2). A token reads the last `width` tokens and no further.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor, nn

from lamina.core import (
    Attention,
    ComponentConfig,
    Context,
    LayerState,
    Linear,
    OutLinear,
    Register,
    causal_conv,
    hookimpl,
)


class ShortConvConfig(ComponentConfig):
    width: int = Field(3, gt=0, le=65_536, description="Tokens a token reads, itself among them.")
    bias: bool = Field(False, description="Biases on the projections and on the convolution.")


class ShortConv(Attention):
    """Mixes neighbours, with a gate before and one after; its memory is as long as the convolution is wide."""

    Config = ShortConvConfig
    paper = "Liquid AI 2025, arXiv:2511.23404"

    def __init__(self, config: ShortConvConfig, dim: int) -> None:
        super().__init__()
        self.gates_in = Linear(dim, 3 * dim, bias=config.bias)  # rows: b, c, x
        self.conv_weight = nn.Parameter(torch.empty(dim, 1, config.width))
        self.conv_bias = nn.Parameter(torch.zeros(dim)) if config.bias else None
        self.out = OutLinear(dim, dim, bias=config.bias)

    def init_weights(self, std: float) -> None:
        nn.init.normal_(self.conv_weight, std=1 / math.sqrt(self.conv_weight.shape[-1]))

    def make_state(self, batch: int, length: int, dtype: torch.dtype, device: torch.device) -> LayerState:
        dim, _, width = self.conv_weight.shape
        return LayerState(batch, length, dtype, device, registers={"tail": (width - 1, dim)})

    def forward(self, x: Tensor, context: Context, cache: LayerState | None = None) -> Tensor:
        before, after, read = self.gates_in(x).chunk(3, -1)  # (B, T, D) each
        tail = cache.read("tail") if cache is not None else None
        mixed, tail = causal_conv(before * read, self.conv_weight.squeeze(1), self.conv_bias, context.queries, tail)
        if cache is not None:
            cache.write("tail", tail)
        out: Tensor = self.out(after * mixed)
        return out


@hookimpl
def register_components(register: Register) -> None:
    register("short_conv", ShortConv)
