"""Lightning attention: linear attention with a fixed decay per head, normed as a whole and gated.

    S_t = e^(-s) S_{t-1} + k_t v_tᵀ,    out = W_o (sigmoid(W_g x) · norm(S_tᵀ q_t)),    q, k, v = act(W x)

Qin et al. 2024, arXiv:2401.04658; this form is that of MiniMax-01, arXiv:2501.08313. The slope of head h of H is
2^(-8h/H), as in ALiBi, smaller in later layers: they look further back.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from lamina.core import (
    Activation,
    Attention,
    ComponentConfig,
    ConfigProblem,
    Context,
    DeviceConstant,
    LayerState,
    Linear,
    Norm,
    OutLinear,
    Part,
    Parts,
    Position,
    Register,
    hookimpl,
    linear_scan,
    slot,
)


class LightningConfig(ComponentConfig):
    n_heads: int = Field(gt=0, le=65_536, description="Attention heads.")
    head_dim: int | None = Field(None, gt=0, le=65_536, description="Width of a head. Default: dim / n_heads.")
    bias: bool = Field(False, description="Biases on the projections.")
    activation: Part = slot("activation", "silu", description="Applied to queries, keys and values.")
    gate: Part | None = slot("activation", "sigmoid", description="Applied to the gate on the output; null has none.")
    norm: Part | None = slot("norm", "rms", description="Norm on the output of all heads together.")
    layer_decay: bool = Field(True, description="Slopes shrink with depth, to nearly nothing in the last layer.")

    def derive(self, dim: int) -> dict[str, Any]:
        if self.head_dim is None and dim % self.n_heads:
            raise ConfigProblem(
                "n_heads", f"dim ({dim}) must be a multiple of n_heads ({self.n_heads})", "change it, or give head_dim"
            )
        return {"head_dim": dim // self.n_heads} if self.head_dim is None else {}


def slopes(n_heads: int, layer: int, n_layers: int, layer_decay: bool) -> list[float]:
    """How fast each head forgets: e^-slope a token."""
    tiny = 1e-5  # keeps the last layer's slope above zero and a single layer's from being divided by zero
    factor = 1 - layer / (n_layers - 1 + tiny) + tiny if layer_decay else 1.0
    return [2.0 ** (-8 * head / n_heads) * factor for head in range(1, n_heads + 1)]


class Lightning(Attention):
    """Linear attention without the dividing sum, which a norm replaces."""

    Config = LightningConfig
    paper = "Qin et al. 2024, arXiv:2401.04658"

    def __init__(
        self,
        config: LightningConfig,
        dim: int,
        layer: int,
        n_layers: int,
        position: Position,
        activation: Activation,
        gate: Activation | None = None,
        norm: Norm | None = None,
    ) -> None:
        super().__init__()
        assert config.head_dim, "set by derive"
        self.n_heads, self.head_dim = config.n_heads, config.head_dim
        self.position, self.activation, self.gate, self.norm = position, activation, gate, norm
        width = self.n_heads * self.head_dim
        self.qkv = Linear(dim, 3 * width, bias=config.bias)  # rows: each head's queries, keys, values
        self.gate_in = Linear(dim, width, bias=config.bias) if gate is not None else None
        self.out = OutLinear(width, dim, bias=config.bias)
        self.log_decay = DeviceConstant([-s for s in slopes(self.n_heads, layer, n_layers, config.layer_decay)])

    @classmethod
    def parts(cls, config: LightningConfig) -> Parts:
        assert config.head_dim, "set by derive"
        return {
            "activation": config.activation.at(),
            "gate": config.gate.at() if config.gate else None,
            "norm": config.norm.at(size=config.n_heads * config.head_dim) if config.norm else None,
        }

    @classmethod
    def provides(cls, config: LightningConfig) -> frozenset[str]:
        return frozenset({"queries_keys"})

    @classmethod
    def position_sizes(cls, config: LightningConfig) -> dict[str, int]:
        assert config.head_dim, "set by derive"
        return {"head_dim": config.head_dim, "n_heads": config.n_heads}

    def make_state(self, batch: int, length: int, dtype: torch.dtype, device: torch.device) -> LayerState:
        registers = {"state": (self.n_heads, self.head_dim, self.head_dim)}
        wide = torch.promote_types(dtype, torch.float32)
        return LayerState(batch, length, dtype, device, registers=registers, register_dtype=wide)

    def forward(self, x: Tensor, context: Context, cache: LayerState | None = None) -> Tensor:
        heads = torch.unflatten(self.activation(self.qkv(x)), -1, (self.n_heads, -1)).transpose(1, 2)  # (B, H, T, 3·Dh)
        q, k, v = heads.chunk(3, -1)
        q, k = self.position.rotate(q, k, context)
        log_decay = self.log_decay.on(x.device).view(1, -1, 1)
        before = cache.read("state") if cache is not None else None
        y, state = linear_scan(q, k, v, log_decay, context.queries, before)
        if cache is not None:
            cache.write("state", state)
        y = y.to(x.dtype).transpose(1, 2).flatten(2)  # (B, T, H·Dh)
        y = y if self.norm is None else self.norm(y)
        if self.gate is not None and self.gate_in is not None:
            y = self.gate(self.gate_in(x)) * y
        projected: Tensor = self.out(y)
        return projected


@hookimpl
def register_components(register: Register) -> None:
    register("lightning", Lightning)
