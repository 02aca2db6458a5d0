"""Two-layer feed-forward network: y = down(norm(act(up(x)))).  Vaswani et al. 2017, arXiv:1706.03762."""

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


class MLPConfig(ComponentConfig):
    hidden_dim: int | None = Field(None, gt=0, description="Inner width; 4 · dim when left out.")
    activation: Part = slot("activation", "gelu", description="Applied between the two projections.")
    bias: bool = Field(False, description="Whether the projection to the inner width adds a bias.")
    out_bias: bool | None = Field(None, description="Whether the projection back adds one. Default: as `bias`.")
    inner_norm: Part | None = slot("norm", None, description="On what the projection back reads.")

    def derive(self, dim: int) -> dict[str, Any]:
        derived = {"hidden_dim": 4 * dim, "out_bias": self.bias}
        return {field: value for field, value in derived.items() if getattr(self, field) is None}


class MLP(FFN):
    """Widen, bend, narrow."""

    Config = MLPConfig
    paper = "Vaswani et al. 2017, arXiv:1706.03762"

    def __init__(self, config: MLPConfig, dim: int, activation: Activation, inner_norm: Norm | None = None) -> None:
        super().__init__()
        assert config.hidden_dim is not None  # derived
        out_bias = config.bias if config.out_bias is None else config.out_bias
        self.up = Linear(dim, config.hidden_dim, bias=config.bias)
        self.activation, self.inner_norm = activation, inner_norm
        self.down = OutLinear(config.hidden_dim, dim, bias=out_bias)

    @classmethod
    def parts(cls, config: MLPConfig) -> Parts:
        norm = config.inner_norm.at(size=config.hidden_dim) if config.inner_norm else None
        return {"activation": config.activation.at(), "inner_norm": norm}

    def forward(self, x: Tensor, context: Context) -> Tensor:
        hidden: Tensor = self.activation(self.up(x))  # (..., F)
        out: Tensor = self.down(hidden if self.inner_norm is None else self.inner_norm(hidden))
        return out

    def lower(self, program: Program, x: Rows) -> Rows:
        hidden = program.activate(program.linear(x, self.up), lowering(self.activation)())
        if self.inner_norm is not None:
            hidden = lowering(self.inner_norm)(program, hidden)
        return program.linear(hidden, self.down)


@hookimpl
def register_components(register: Register) -> None:
    register("mlp", MLP)
