"""Gated feed-forward network: y = down(act(gate(x)) · up(x)).  Shazeer 2020, arXiv:2002.05202.

The activation gives it its name: sigmoid GLU, relu ReGLU, gelu GeGLU, silu SwiGLU.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field
from torch import Tensor

from lamina.core import FFN, Activation, ComponentConfig, Context, Linear, OutLinear, Part, Register, hookimpl, slot


class GatedConfig(ComponentConfig):
    hidden_dim: int | None = Field(
        None,
        gt=0,
        description="Inner width; when left out 8/3 · dim, which costs what an ungated 4 · dim costs, "
        "rounded up to a multiple of 8.",
    )
    activation: Part = slot("activation", "silu", description="Applied to the gate.")
    bias: bool = Field(False, description="Whether every projection adds a bias.")

    def derive(self, dim: int) -> dict[str, Any]:  # type: ignore[override]
        return {"hidden_dim": -(-dim // 3) * 8} if self.hidden_dim is None else {}


class Gated(FFN):
    """One projection opens and closes the other, channel by channel."""

    Config = GatedConfig
    paper = "Shazeer 2020, arXiv:2002.05202"

    def __init__(self, config: GatedConfig, dim: int, activation: Activation) -> None:
        super().__init__()
        assert config.hidden_dim is not None  # derived
        self.gate_up = Linear(dim, 2 * config.hidden_dim, bias=config.bias)  # rows: gate, then up
        self.activation = activation
        self.down = OutLinear(config.hidden_dim, dim, bias=config.bias)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, -1)  # (..., F) each
        out: Tensor = self.down(self.activation(gate) * up)
        return out


@hookimpl
def register_components(register: Register) -> None:
    register("gated", Gated)
