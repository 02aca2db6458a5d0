"""Gated DeltaNet: a state that is faded, then corrected where the new key reads it wrongly.

    S_t = a_t (I - β_t k_t k_tᵀ) S_{t-1} + β_t k_t v_tᵀ,    out = W_o (norm(S_tᵀ q_t) · silu(W_z x))
    a_t = exp(-exp(A) · softplus(W_a x + bias)),    β_t = sigmoid(W_b x)

with queries, keys and values after a short convolution and queries and keys of unit length. Yang et al. 2024,
arXiv:2412.06464. Without `decay` and `gate` it is DeltaNet (arXiv:2406.06484); `negative_eigenvalues` doubles β, so
that a key may also turn the state's sign (Grazzi et al. 2024, arXiv:2411.12537).
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
    unit,
)


class GatedDeltaNetConfig(ComponentConfig):
    n_heads: int = Field(gt=0, le=65_536, description="Heads of values, each with a state of its own.")
    n_qk_heads: int | None = Field(
        None, gt=0, le=65_536, description="Heads of queries and keys, each for n_heads / n_qk_heads. Default: n_heads."
    )
    head_dim: int | None = Field(
        None, gt=0, le=65_536, description="Width of a head's queries and keys. Default: dim / n_heads."
    )
    v_head_dim: int | None = Field(None, gt=0, le=65_536, description="Width of a head's values. Default: head_dim.")
    conv_width: int = Field(
        4, gt=0, le=256, description="Tokens the short convolution reads, the token's own included."
    )
    activation: Part = slot("activation", "silu", description="Applied after the convolution.")
    decay: bool = Field(True, description="Fade the state by a factor that depends on the token.")
    gate: Part | None = slot("activation", "silu", description="Applied to the gate on the output; null has no gate.")
    norm: Part | None = slot("norm", "rms", description="Norm on each head's output, before the gate.")
    negative_eigenvalues: bool = Field(False, description="β in (0, 2) in place of (0, 1).")

    def derive(self, dim: int) -> dict[str, Any]:
        n_qk_heads = self.n_qk_heads or self.n_heads
        if self.n_heads % n_qk_heads:
            divisors = [n for n in range(1, self.n_heads + 1) if self.n_heads % n == 0]
            raise ConfigProblem(
                "n_qk_heads",
                f"n_heads ({self.n_heads}) must be a multiple of n_qk_heads ({n_qk_heads})",
                f"use one of {', '.join(map(str, divisors))}",
            )
        if self.head_dim is None and dim % self.n_heads:
            raise ConfigProblem(
                "n_heads", f"dim ({dim}) must be a multiple of n_heads ({self.n_heads})", "change it, or give head_dim"
            )
        head_dim = self.head_dim or dim // self.n_heads
        derived = {"n_qk_heads": n_qk_heads, "head_dim": head_dim, "v_head_dim": head_dim}
        return {field: value for field, value in derived.items() if getattr(self, field) is None}


class GatedDeltaNet(Attention):
    """Overwrites what it has kept for a key instead of adding to it, and forgets on purpose."""

    Config = GatedDeltaNetConfig
    paper = "Yang et al. 2024, arXiv:2412.06464"

    def __init__(
        self,
        config: GatedDeltaNetConfig,
        dim: int,
        activation: Activation,
        gate: Activation | None = None,
        norm: Norm | None = None,
    ) -> None:
        super().__init__()
        assert config.n_qk_heads, "set by derive"
        assert config.head_dim, "set by derive"
        assert config.v_head_dim, "set by derive"
        self.n_heads, self.n_qk_heads = config.n_heads, config.n_qk_heads
        self.head_dim, self.v_head_dim = config.head_dim, config.v_head_dim
        self.activation, self.gate, self.norm = activation, gate, norm
        self.beta_scale = 2.0 if config.negative_eigenvalues else 1.0
        qk, v = self.n_qk_heads * self.head_dim, self.n_heads * self.v_head_dim
        self.split, self.mixed = (qk, qk, v), 2 * qk + v
        self.qkvz = Linear(dim, self.mixed + (v if gate is not None else 0), bias=False)  # rows: q, k, v, gate
        self.ba = Linear(dim, (2 if config.decay else 1) * self.n_heads, bias=False)  # rows: strengths, decays
        self.conv_weight = nn.Parameter(torch.zeros(self.mixed, 1, config.conv_width))  # (q, k, v channels, 1, W)
        self.A_log = nn.Parameter(torch.zeros(self.n_heads)) if config.decay else None
        self.dt_bias = nn.Parameter(torch.ones(self.n_heads)) if config.decay else None
        self.out = OutLinear(v, dim, bias=False)

    @classmethod
    def parts(cls, config: GatedDeltaNetConfig) -> Parts:
        return {
            "activation": config.activation.at(),
            "gate": config.gate.at() if config.gate else None,
            "norm": config.norm.at(size=config.v_head_dim) if config.norm else None,
        }

    def init_weights(self, std: float) -> None:
        bound = self.conv_weight.shape[-1] ** -0.5
        self.conv_weight.uniform_(-bound, bound)
        if self.A_log is not None:
            self.A_log.uniform_(0.01, 16.0).log_()

    def make_state(self, batch: int, length: int, dtype: torch.dtype, device: torch.device) -> LayerState:
        registers = {
            "state": (self.n_heads, self.head_dim, self.v_head_dim),
            "tail": (self.conv_weight.shape[-1] - 1, self.mixed),
        }
        wide = torch.promote_types(dtype, torch.float32)
        return LayerState(batch, length, dtype, device, registers=registers, register_dtype=wide)

    def forward(self, x: Tensor, context: Context, cache: LayerState | None = None) -> Tensor:
        projected = self.qkvz(x)
        tail = cache.read("tail") if cache is not None else None
        mixed, tail = causal_conv(
            projected[..., : self.mixed], self.conv_weight.squeeze(1), None, context.queries, tail
        )
        q, k, v = self.activation(mixed).split_with_sizes(self.split, -1)
        q, k = (
            unit(torch.unflatten(part, -1, (self.n_qk_heads, -1))).transpose(1, 2) for part in (q, k)
        )  # (B, G, T, Dh)
        v = torch.unflatten(v, -1, (self.n_heads, -1)).transpose(1, 2)  # (B, H, T, Dv)
        beta, log_decay = self._strengths(x)
        before = cache.read("state") if cache is not None else None
        y, state = delta_scan(q * self.head_dim**-0.5, k, v, beta, log_decay, context.queries, before)
        if cache is not None:
            cache.write("tail", tail)
            cache.write("state", state)
        y = y.to(x.dtype).transpose(1, 2)  # (B, T, H, Dv)
        y = (y if self.norm is None else self.norm(y)).flatten(2)
        if self.gate is not None:
            y = y * self.gate(projected[..., self.mixed :])
        out: Tensor = self.out(y)
        return out

    def _strengths(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """β and the logarithm of a, both (B, H, T) in float32 or wider"""
        ba = self.ba(x).transpose(1, 2)
        ba = ba.to(torch.promote_types(ba.dtype, torch.float32))
        beta = self.beta_scale * ba[:, : self.n_heads].sigmoid()
        if self.A_log is None or self.dt_bias is None:
            return beta, None
        rate, bias = (parameter.to(ba.dtype).unsqueeze(-1) for parameter in (self.A_log, self.dt_bias))
        return beta, -rate.exp() * F.softplus(ba[:, self.n_heads :] + bias)


@hookimpl
def register_components(register: Register) -> None:
    register("gated_deltanet", GatedDeltaNet)
