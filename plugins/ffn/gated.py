"""Gated feed-forward network: y = down(norm(act(gate(x)) · up(x))).  Shazeer 2020, arXiv:2002.05202.

The activation gives it its name: sigmoid GLU, relu ReGLU, gelu GeGLU, silu SwiGLU, identity bilinear.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field
from torch import Tensor

from lamina.core import (
    FFN,
    Activation,
    ComponentConfig,
    Context,
    Linear,
    Norm,
    OutLinear,
    Part,
    Parts,
    Program,
    Register,
    Rows,
    hookimpl,
    lowering,
    slot,
)


class GatedConfig(ComponentConfig):
    hidden_dim: int | None = Field(
        None,
        gt=0,
        description="Inner width; when left out 8/3 · dim, which costs what an ungated 4 · dim costs, "
        "rounded up to a multiple of 8.",
    )
    activation: Part = slot("activation", "silu", description="Applied to the gate.")
    bias: bool = Field(False, description="Whether the projections to the inner width add a bias.")
    out_bias: bool | None = Field(None, description="Whether the projection back adds one. Default: as `bias`.")
    inner_norm: Part | None = slot("norm", None, description="On what the projection back reads, as BitNet has it.")
    gate_scale: float = Field(1.0, description="Multiplies the gate before its activation, as Falcon-H1 does.")
    out_scale: float = Field(1.0, description="Multiplies the output, as Falcon-H1 does.")

    def derive(self, dim: int) -> dict[str, Any]:
        derived = {"hidden_dim": -(-dim // 3) * 8, "out_bias": self.bias}
        return {field: value for field, value in derived.items() if getattr(self, field) is None}


class Gated(FFN):
    """One projection opens and closes the other, channel by channel."""

    Config = GatedConfig
    paper = "Shazeer 2020, arXiv:2002.05202"

    def __init__(self, config: GatedConfig, dim: int, activation: Activation, inner_norm: Norm | None = None) -> None:
        super().__init__()
        assert config.hidden_dim is not None  # derived
        out_bias = config.bias if config.out_bias is None else config.out_bias
        self.gate_scale, self.out_scale = config.gate_scale, config.out_scale
        self.gate_up = Linear(dim, 2 * config.hidden_dim, bias=config.bias)  # rows: gate, then up
        self.activation, self.inner_norm = activation, inner_norm
        self.down = OutLinear(config.hidden_dim, dim, bias=out_bias)

    @classmethod
    def parts(cls, config: GatedConfig) -> Parts:
        norm = config.inner_norm.at(size=config.hidden_dim) if config.inner_norm else None
        return {"activation": config.activation.at(), "inner_norm": norm}

    def forward(self, x: Tensor, context: Context) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, -1)  # (..., F) each
        if self.gate_scale != 1.0:
            gate = gate * self.gate_scale
        hidden = self.activation(gate) * up
        out: Tensor = self.down(hidden if self.inner_norm is None else self.inner_norm(hidden))
        return out if self.out_scale == 1.0 else out * self.out_scale

    def lower(self, program: Program, x: Rows) -> Rows:
        both = program.linear(x, self.gate_up)
        width = both.width // 2
        gate, up = both.part(0, width), both.part(width, width)
        hidden = program.activate(gate, lowering(self.activation)(), times=up, scale=self.gate_scale)
        if self.inner_norm is not None:
            hidden = lowering(self.inner_norm)(program, hidden)
        return program.linear(hidden, self.down, scale=self.out_scale)


@hookimpl
def register_components(register: Register) -> None:
    register("gated", Gated)
