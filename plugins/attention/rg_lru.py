"""Griffin's recurrent block: y = out(act(gate(x)) · RG-LRU(conv(in(x)))).  De et al. 2024, arXiv:2402.19427.

The real-gated linear recurrent unit, channel by channel: with r_t and i_t in (0, 1) from block-diagonal projections,

    a_t = exp(-8 · softplus(Λ) · r_t)      h_t = a_t · h_{t-1} + sqrt(1 - a_t²) · i_t · x_t

and at the first token of a document h_t = i_t · x_t.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from lamina.core import (
    Activation,
    Attention,
    ComponentConfig,
    ConfigProblem,
    Context,
    LayerState,
    Linear,
    OutLinear,
    Part,
    Register,
    Span,
    causal_conv,
    diagonal_scan,
    hookimpl,
    slot,
)

SHARPNESS = 8.0  # the paper's c


class RGLRUConfig(ComponentConfig):
    width: int | None = Field(None, gt=0, description="Channels of the recurrence. Default: dim.")
    n_heads: int = Field(1, gt=0, le=65_536, description="Blocks of the two gates' projections.")
    conv_width: int = Field(4, gt=0, le=65_536, description="Tokens the convolution reads, the present one included.")
    activation: Part = slot("activation", "gelu_tanh", description="Applied to the branch that gates the output.")
    bias: bool = Field(True, description="Whether the projections in and out add a bias.")

    def derive(self, dim: int) -> dict[str, Any]:
        width = self.width or dim
        if width % self.n_heads:
            divisors = [n for n in range(1, width + 1) if width % n == 0]
            raise ConfigProblem(
                "n_heads",
                f"width ({width}) must be a multiple of n_heads ({self.n_heads})",
                f"use one of {', '.join(map(str, divisors))}",
            )
        return {"width": width} if self.width is None else {}


class RGLRU(Attention):
    """A recurrence that each token opens and closes for itself: a fixed memory, however long the text."""

    Config = RGLRUConfig
    paper = "De et al. 2024, arXiv:2402.19427"

    def __init__(self, config: RGLRUConfig, dim: int, activation: Activation) -> None:
        super().__init__()
        assert config.width, "set by derive"
        width, block = config.width, config.width // config.n_heads
        self.gate_in = Linear(dim, 2 * width, bias=config.bias)  # rows: the branch that gates, the one that recurs
        self.activation = activation
        self.conv_weight = nn.Parameter(torch.empty(width, 1, config.conv_width))
        self.conv_bias = nn.Parameter(torch.zeros(width))
        # [0] gates the input (i), [1] the recurrence (r); block-diagonal, (2, n_heads, in, out).
        self.gate_weight = nn.Parameter(torch.empty(2, config.n_heads, block, block))
        self.gate_bias = nn.Parameter(torch.zeros(2 * width))
        self.decay = nn.Parameter(torch.empty(width))  # Λ
        self.out = OutLinear(width, dim, bias=config.bias)

    def init_weights(self, std: float) -> None:
        nn.init.normal_(self.conv_weight, std=1 / math.sqrt(self.conv_weight.shape[-1]))
        nn.init.normal_(self.gate_weight, std=1 / math.sqrt(self.gate_weight.shape[2]))
        # The decay of an open gate, exp(-8 · softplus(Λ)), lies between 0.9 and 0.999.
        with torch.no_grad():
            kept = torch.empty_like(self.decay, dtype=torch.float32).uniform_(0.9, 0.999)
            self.decay.copy_(torch.log(torch.expm1(-torch.log(kept) / SHARPNESS)))

    def make_state(self, batch: int, length: int, dtype: torch.dtype, device: torch.device) -> LayerState:
        width, _, conv_width = self.conv_weight.shape
        return LayerState(
            batch,
            length,
            dtype,
            device,
            registers={"tail": (conv_width - 1, width), "hidden": (width,)},
            # A sum over the whole past would drown in bfloat16's rounding.
            register_dtype=torch.promote_types(dtype, torch.float32),
        )

    def forward(self, x: Tensor, context: Context, cache: LayerState | None = None) -> Tensor:
        gate, recurring = self.gate_in(x).chunk(2, -1)  # (B, T, width) each
        tail = cache.read("tail") if cache is not None else None
        recurring, tail = causal_conv(recurring, self.conv_weight.squeeze(1), self.conv_bias, context.queries, tail)
        hidden = cache.read("hidden") if cache is not None else None
        mixed, hidden = self.recur(recurring, context.queries, hidden)  # (B, T, width), float32 or wider
        if cache is not None:
            cache.write("tail", tail)
            cache.write("hidden", hidden)
        out: Tensor = self.out(self.activation(gate) * mixed.to(x.dtype))
        return out

    def recur(self, x: Tensor, queries: Span, hidden: Tensor | None) -> tuple[Tensor, Tensor]:
        """RG-LRU of x (B, T, width), going on from `hidden` (B, width), and the last of it."""
        wide = torch.promote_types(x.dtype, torch.float32)
        heads = x.view(*x.shape[:-1], *self.gate_weight.shape[1:3])  # (B, T, n_heads, block)
        gates = torch.einsum("bthi,ghio->btgho", heads, self.gate_weight.to(x.dtype)).flatten(2)
        gates = torch.sigmoid((gates + self.gate_bias.to(x.dtype)).to(wide))
        opened, kept = gates.chunk(2, -1)  # (B, T, width) each
        log_decay = -SHARPNESS * F.softplus(self.decay.to(wide)) * kept
        # 1 - a² loses its digits where a is close to 1. The least value keeps the root's slope finite.
        share = torch.sqrt(-torch.expm1(2 * log_decay).clamp(max=-1e-12))
        first = (queries.positions == 0).unsqueeze(-1)  # (1 or B, T, 1)
        added = x.to(wide) * opened * torch.where(first, 1.0, share)
        return diagonal_scan(log_decay.exp(), added, queries, hidden)


@hookimpl
def register_components(register: Register) -> None:
    register("rg_lru", RGLRU)
