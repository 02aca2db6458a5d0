"""Gated feed-forward network with a sparse gate: y = down(act(max(gate - cutoff, 0)) · up).

cutoff = mean(gate) + std(gate) · Φ⁻¹(sparsity), taken over the channels of a token: were they normally distributed, the
given share of them would be zero. The statistical top-k of Gemma 3n (Google 2025, “Gemma 3n model overview”).
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from lamina.core import FFN, Activation, ComponentConfig, Context, Linear, OutLinear, Part, Register, hookimpl, slot


class SparseGatedConfig(ComponentConfig):
    hidden_dim: int | None = Field(
        None,
        gt=0,
        description="Inner width; when left out 8/3 · dim, which costs what an ungated 4 · dim costs, "
        "rounded up to a multiple of 8.",
    )
    sparsity: float = Field(0.95, gt=0, lt=1, description="The share of inner channels that are to be zero.")
    activation: Part = slot("activation", "gelu_tanh", description="Applied to the gate; it must map zero to zero.")
    bias: bool = Field(False, description="Whether every projection adds a bias.")

    def derive(self, dim: int) -> dict[str, Any]:
        return {"hidden_dim": -(-dim // 3) * 8} if self.hidden_dim is None else {}


class SparseGated(FFN):
    """Only the channels whose gate stands out from the rest take part, found without sorting."""

    Config = SparseGatedConfig
    paper = "Google 2025, Gemma 3n"

    def __init__(self, config: SparseGatedConfig, dim: int, activation: Activation) -> None:
        super().__init__()
        assert config.hidden_dim is not None  # derived
        self.cutoff = NormalDist().inv_cdf(config.sparsity) / math.sqrt(config.hidden_dim)
        self.gate_up = Linear(dim, 2 * config.hidden_dim, bias=config.bias)  # rows: gate, then up
        self.activation = activation
        self.down = OutLinear(config.hidden_dim, dim, bias=config.bias)

    @classmethod
    def requires(cls, config: SparseGatedConfig) -> dict[str, frozenset[str]]:
        return {"activation": frozenset({"zero_at_zero"})}

    def forward(self, x: Tensor, context: Context) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, -1)  # (..., F) each
        above = gate - gate.mean(-1, keepdim=True)
        length = torch.linalg.vector_norm(above, dim=-1, keepdim=True)  # sqrt(F) standard deviations
        out: Tensor = self.down(self.activation(F.relu(above - length * self.cutoff)) * up)
        return out


@hookimpl
def register_components(register: Register) -> None:
    register("sparse_gated", SparseGated)
