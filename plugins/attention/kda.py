"""Kimi delta attention: every channel of a state fades at its own pace; new keys correct what they read wrongly.

    S_t = (I - β_t k_t k_tᵀ) Diag(a_t) S_{t-1} + β_t k_t v_tᵀ,    out = W_o (norm(S_tᵀ q_t) · sigmoid(W_g↑ W_g↓ x))
    a_t = exp(-exp(A) · softplus(W_a↑ W_a↓ x + bias)),    β_t = sigmoid(W_b x)

with queries, keys and values after a short convolution and queries and keys of unit length; decays and gate are read
from narrow latents. Kimi Team 2025 (Kimi Linear), arXiv:2510.26692. One decay a head makes it gated DeltaNet.
"""

from __future__ import annotations

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
    Norm,
    OutLinear,
    Part,
    Parts,
    Register,
    causal_conv,
    delta_scan,
    hookimpl,
    slot,
    spread_steps,
    unit,
)

A_RANGE, STEP_RANGE = (1.0, 16.0), (1e-3, 1e-1)  # what exp(A) and softplus(bias) start in


class KDAConfig(ComponentConfig):
    n_heads: int = Field(gt=0, le=65_536, description="Heads, each with a state of its own.")
    head_dim: int | None = Field(
        None, gt=0, le=65_536, description="Width of a head's queries, keys and values. Default: dim / n_heads."
    )
    rank: int | None = Field(
        None, gt=0, le=65_536, description="Width of the latents of decays and gate. Default: head_dim."
    )
    conv_width: int = Field(
        4, gt=0, le=256, description="Tokens the short convolution reads, the token's own included."
    )
    activation: Part = slot("activation", "silu", description="Applied after the convolution.")
    gate: Part = slot("activation", "sigmoid", description="Applied to the gate on the output.")
    norm: Part | None = slot("norm", "rms", description="Norm on each head's output, before the gate.")

    def derive(self, dim: int) -> dict[str, Any]:
        if self.head_dim is None and dim % self.n_heads:
            raise ConfigProblem(
                "n_heads", f"dim ({dim}) must be a multiple of n_heads ({self.n_heads})", "change it, or give head_dim"
            )
        head_dim = self.head_dim or dim // self.n_heads
        derived = {"head_dim": head_dim, "rank": head_dim}
        return {field: value for field, value in derived.items() if getattr(self, field) is None}


class KDA(Attention):
    """Gated DeltaNet that may forget one channel of its state and keep another."""

    Config = KDAConfig
    paper = "Kimi Team 2025, arXiv:2510.26692"

    def __init__(
        self, config: KDAConfig, dim: int, activation: Activation, gate: Activation, norm: Norm | None = None
    ) -> None:
        super().__init__()
        assert config.head_dim, "set by derive"
        assert config.rank, "set by derive"
        self.n_heads, self.head_dim = config.n_heads, config.head_dim
        self.activation, self.gate, self.norm = activation, gate, norm
        width = self.n_heads * self.head_dim
        self.latents = (config.rank, config.rank, self.n_heads)
        self.qkv = Linear(dim, 3 * width, bias=False)  # rows: queries, keys, values
        self.down = Linear(dim, sum(self.latents), bias=False)  # rows: latents of decays and of gate, strengths
        self.decay_up = Linear(config.rank, width, bias=False)
        self.gate_up = Linear(config.rank, width, bias=False)
        self.conv_weight = nn.Parameter(torch.zeros(3 * width, 1, config.conv_width))  # (q, k, v channels, 1, W)
        self.A_log = nn.Parameter(torch.zeros(self.n_heads))
        self.dt_bias = nn.Parameter(torch.zeros(width))
        self.out = OutLinear(width, dim, bias=False)

    @classmethod
    def parts(cls, config: KDAConfig) -> Parts:
        return {
            "activation": config.activation.at(),
            "gate": config.gate.at(),
            "norm": config.norm.at(size=config.head_dim) if config.norm else None,
        }

    def init_weights(self, std: float) -> None:
        bound = self.conv_weight.shape[-1] ** -0.5
        self.conv_weight.uniform_(-bound, bound)
        self.A_log.uniform_(*A_RANGE).log_()
        spread_steps(self.dt_bias, *STEP_RANGE)

    def make_state(self, batch: int, length: int, dtype: torch.dtype, device: torch.device) -> LayerState:
        registers = {
            "state": (self.n_heads, self.head_dim, self.head_dim),
            "tail": (self.conv_weight.shape[-1] - 1, self.conv_weight.shape[0]),
        }
        wide = torch.promote_types(dtype, torch.float32)
        return LayerState(batch, length, dtype, device, registers=registers, register_dtype=wide)

    def forward(self, x: Tensor, context: Context, cache: LayerState | None = None) -> Tensor:
        tail = cache.read("tail") if cache is not None else None
        mixed, tail = causal_conv(self.qkv(x), self.conv_weight.squeeze(1), None, context.queries, tail)
        q, k, v = (self._heads(part) for part in self.activation(mixed).chunk(3, -1))
        decay, gate, strength = self.down(x).split_with_sizes(self.latents, -1)
        before = cache.read("state") if cache is not None else None
        wide = torch.promote_types(x.dtype, torch.float32)
        beta = strength.transpose(1, 2).to(wide).sigmoid()  # (B, H, T)
        q = unit(q) * self.head_dim**-0.5
        y, state = delta_scan(q, unit(k), v, beta, self._log_decay(decay, wide), context.queries, before)
        if cache is not None:
            cache.write("tail", tail)
            cache.write("state", state)
        y = y.to(x.dtype).transpose(1, 2)  # (B, T, H, Dh)
        y = (y if self.norm is None else self.norm(y)).flatten(2)
        out: Tensor = self.out(y * self.gate(self.gate_up(gate)))
        return out

    def _heads(self, x: Tensor) -> Tensor:
        """(B, T, H·Dh) -> (B, H, T, Dh)"""
        return x.view(*x.shape[:2], self.n_heads, -1).transpose(1, 2)

    def _log_decay(self, latent: Tensor, wide: torch.dtype) -> Tensor:
        """(B, T, rank) -> (B, H, T, Dh)"""
        step = F.softplus(self.decay_up(latent).to(wide) + self.dt_bias.to(wide))
        return -self.A_log.to(wide).exp().view(-1, 1, 1) * self._heads(step)


@hookimpl
def register_components(register: Register) -> None:
    register("kda", KDA)
