"""Clamped gated feed-forward network: y = down((up + offset) · g · σ(alpha · g)), g = min(gate, limit), |up| ≤ limit.

OpenAI 2025, arXiv:2508.10925 (gpt-oss). `alpha: 1.0, offset: 0.0` is a SwiGLU that cannot grow without bound.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from lamina.core import FFN, ComponentConfig, Context, Linear, OutLinear, Register, hookimpl


class ClampedGatedConfig(ComponentConfig):
    hidden_dim: int | None = Field(
        None,
        gt=0,
        description="Inner width; when left out 8/3 · dim, which costs what an ungated 4 · dim costs, "
        "rounded up to a multiple of 8.",
    )
    limit: float = Field(7.0, gt=0, description="The gate is cut off above this, the other branch on both sides.")
    alpha: float = Field(1.702, description="Multiplies the gate inside the sigmoid.")
    offset: float = Field(1.0, description="Added to the branch that is gated.")
    bias: bool = Field(True, description="Whether the projections to the inner width add a bias.")
    out_bias: bool | None = Field(None, description="Whether the projection back adds one. Default: as `bias`.")

    def derive(self, dim: int) -> dict[str, Any]:
        derived = {"hidden_dim": -(-dim // 3) * 8, "out_bias": self.bias}
        return {field: value for field, value in derived.items() if getattr(self, field) is None}


class ClampedGated(FFN):
    """A gated ffn whose inner values stay within a limit, so that few bits can hold them."""

    Config = ClampedGatedConfig
    paper = "OpenAI 2025, arXiv:2508.10925"

    def __init__(self, config: ClampedGatedConfig, dim: int) -> None:
        super().__init__()
        assert config.hidden_dim is not None  # derived
        out_bias = config.bias if config.out_bias is None else config.out_bias
        self.limit, self.alpha, self.offset = config.limit, config.alpha, config.offset
        self.gate_up = Linear(dim, 2 * config.hidden_dim, bias=config.bias)  # rows: gate, then up
        self.down = OutLinear(config.hidden_dim, dim, bias=out_bias)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, -1)  # (..., F) each
        gate, up = gate.clamp(max=self.limit), up.clamp(-self.limit, self.limit)
        out: Tensor = self.down((up + self.offset) * gate * torch.sigmoid(self.alpha * gate))
        return out


@hookimpl
def register_components(register: Register) -> None:
    register("clamped_gated", ClampedGated)
