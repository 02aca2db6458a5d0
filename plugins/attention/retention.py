"""Retention: attention whose weights are q·k times a decay γ per token of distance, in place of a softmax.

    S_t = γ S_{t-1} + k_t v_tᵀ,    y_t = norm(S_tᵀ q_t),    out = W_o (swish(W_g x) · y),    γ_h = 1 - 2^(-5-h)

Sun et al. 2023 (RetNet), arXiv:2307.08621. Every head forgets at its own pace and has its output normed by itself, so
that no further scaling of scores matters. The paper turns queries and keys by their position: give the block `rope`.
"""

from __future__ import annotations

import math
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


class RetentionConfig(ComponentConfig):
    n_heads: int = Field(gt=0, le=256, description="Heads; each further one forgets half as fast as the one before.")
    head_dim: int | None = Field(
        None, gt=0, le=65_536, description="Width of a head's queries and keys. Default: dim / n_heads."
    )
    v_head_dim: int | None = Field(
        None, gt=0, le=65_536, description="Width of a head's values. Default: 2 · head_dim, as in the paper."
    )
    bias: bool = Field(False, description="Biases on the projections.")
    gate: Part | None = slot("activation", "silu", description="Applied to the gate on the output; null has no gate.")
    norm: Part | None = slot("norm", {"name": "rms", "affine": False}, description="Norm on each head's output.")

    def derive(self, dim: int) -> dict[str, Any]:
        if self.head_dim is None and dim % self.n_heads:
            raise ConfigProblem(
                "n_heads", f"dim ({dim}) must be a multiple of n_heads ({self.n_heads})", "change it, or give head_dim"
            )
        head_dim = self.head_dim or dim // self.n_heads
        derived = {"head_dim": head_dim, "v_head_dim": 2 * head_dim}
        return {field: value for field, value in derived.items() if getattr(self, field) is None}


class Retention(Attention):
    """Heads that remember for longer and longer: the first some thirty tokens, each next one twice as many."""

    Config = RetentionConfig
    paper = "Sun et al. 2023, arXiv:2307.08621"

    def __init__(
        self,
        config: RetentionConfig,
        dim: int,
        position: Position,
        gate: Activation | None = None,
        norm: Norm | None = None,
    ) -> None:
        super().__init__()
        assert config.head_dim, "set by derive"
        assert config.v_head_dim, "set by derive"
        self.n_heads, self.head_dim, self.v_head_dim = config.n_heads, config.head_dim, config.v_head_dim
        self.position, self.gate, self.norm = position, gate, norm
        qk, v = self.n_heads * self.head_dim, self.n_heads * self.v_head_dim
        self.split = [qk, qk, v, v] if gate is not None else [qk, qk, v]
        self.qkvg = Linear(dim, sum(self.split), bias=config.bias)  # rows: queries, keys, values, gate
        self.out = OutLinear(v, dim, bias=config.bias)
        self.log_decay = DeviceConstant([math.log1p(-(2.0 ** (-5 - head))) for head in range(self.n_heads)])

    @classmethod
    def parts(cls, config: RetentionConfig) -> Parts:
        return {
            "gate": config.gate.at() if config.gate else None,
            "norm": config.norm.at(size=config.v_head_dim) if config.norm else None,
        }

    @classmethod
    def provides(cls, config: RetentionConfig) -> frozenset[str]:
        return frozenset({"queries_keys"})

    @classmethod
    def position_sizes(cls, config: RetentionConfig) -> dict[str, int]:
        assert config.head_dim, "set by derive"
        return {"head_dim": config.head_dim, "n_heads": config.n_heads}

    def make_state(self, batch: int, length: int, dtype: torch.dtype, device: torch.device) -> LayerState:
        registers = {"state": (self.n_heads, self.head_dim, self.v_head_dim)}
        wide = torch.promote_types(dtype, torch.float32)
        return LayerState(batch, length, dtype, device, registers=registers, register_dtype=wide)

    def forward(self, x: Tensor, context: Context, cache: LayerState | None = None) -> Tensor:
        parts = self.qkvg(x).split_with_sizes(self.split, -1)
        q, k, v = (part.unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for part in parts[:3])  # (B, H, T, ·)
        q, k = self.position.rotate(q, k * self.head_dim**-0.5, context)
        log_decay = self.log_decay.on(x.device).view(1, -1, 1)
        before = cache.read("state") if cache is not None else None
        y, state = linear_scan(q, k, v, log_decay, context.queries, before)
        if cache is not None:
            cache.write("state", state)
        y = y.to(x.dtype).transpose(1, 2)  # (B, T, H, Dv)
        y = (y if self.norm is None else self.norm(y)).flatten(2)
        projected: Tensor = self.out(y if self.gate is None else self.gate(parts[3]) * y)
        return projected


@hookimpl
def register_components(register: Register) -> None:
    register("retention", Retention)
