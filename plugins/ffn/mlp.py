"""Two-layer feed-forward network: y = down(act(up(x))).  Vaswani et al. 2017, arXiv:1706.03762."""

from __future__ import annotations

from typing import Any

from pydantic import Field
from torch import Tensor

from lamina.core import FFN, Activation, ComponentConfig, Context, Linear, OutLinear, Part, Register, hookimpl, slot


class MLPConfig(ComponentConfig):
    hidden_dim: int | None = Field(None, gt=0, description="Inner width; 4 · dim when left out.")
    activation: Part = slot("activation", "gelu", description="Applied between the two projections.")
    bias: bool = Field(False, description="Whether both projections add a bias.")

    def derive(self, dim: int) -> dict[str, Any]:  # type: ignore[override]
        return {"hidden_dim": 4 * dim} if self.hidden_dim is None else {}


class MLP(FFN):
    """Widen, bend, narrow."""

    Config = MLPConfig
    paper = "Vaswani et al. 2017, arXiv:1706.03762"

    def __init__(self, config: MLPConfig, dim: int, activation: Activation) -> None:
        super().__init__()
        assert config.hidden_dim is not None  # derived
        self.up = Linear(dim, config.hidden_dim, bias=config.bias)
        self.activation = activation
        self.down = OutLinear(config.hidden_dim, dim, bias=config.bias)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        hidden: Tensor = self.activation(self.up(x))  # (..., F)
        out: Tensor = self.down(hidden)
        return out


@hookimpl
def register_components(register: Register) -> None:
    register("mlp", MLP)
