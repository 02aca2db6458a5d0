"""Mamba-2: a state-space model whose decay is one number a head, and so a form of linear attention.

    S_t = exp(-exp(A) Δ_t) S_{t-1} + B_t (Δ_t x_t)ᵀ,    y_t = S_tᵀ C_t + D x_t,    Δ_t = softplus(W_Δ u + bias)
    out = W_o norm(y · silu(z))

with x, B and C after a short convolution; B and C play keys and queries and serve `n_heads / n_groups` heads each.
Dao & Gu 2024, arXiv:2405.21060.
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
    hookimpl,
    linear_scan,
    slot,
    spread_steps,
)

DT_RANGE = (1e-3, 1e-1)  # step sizes are drawn from here at the start, evenly by their logarithm
A_RANGE = (1.0, 16.0)


class Mamba2Config(ComponentConfig):
    n_heads: int | None = Field(None, gt=0, le=65_536, description="Heads. Default: expand · dim / head_dim.")
    head_dim: int = Field(64, gt=0, le=65_536, description="Width of a head.")
    expand: float | None = Field(None, gt=0, description="n_heads · head_dim as a multiple of dim. Default: 2.")
    state_dim: int = Field(128, gt=0, le=65_536, description="Width of B and C, the rows of a head's state.")
    n_groups: int = Field(1, gt=0, le=65_536, description="Groups of heads that share B and C.")
    conv_width: int = Field(
        4, gt=0, le=256, description="Tokens the short convolution reads, the token's own included."
    )
    conv_bias: bool = Field(True, description="A bias on the convolution.")
    bias: bool = Field(False, description="Biases on the projections.")
    activation: Part = slot("activation", "silu", description="Applied after the convolution.")
    gate: Part | None = slot("activation", "silu", description="Applied to the gate z; null has no gate.")
    norm: Part | None = slot("norm", "rms", description="Norm on the output.")
    norm_groups: int | None = Field(
        None, gt=0, le=65_536, description="The output is normed in this many parts, each by itself. Default: n_groups."
    )
    norm_before_gate: bool = Field(False, description="norm(y) · gate(z) in place of norm(y · gate(z)).")
    dt_min: float = Field(0.0, ge=0, description="No step Δ is smaller.")
    dt_max: float | None = Field(None, gt=0, description="No step Δ is larger; null leaves them.")

    def derive(self, dim: int) -> dict[str, Any]:
        n_heads = self._n_heads(dim)
        norm_groups = self.norm_groups or self.n_groups
        if n_heads % self.n_groups:
            raise ConfigProblem(
                "n_groups", f"n_heads ({n_heads}) must be a multiple of n_groups ({self.n_groups})", "change one"
            )
        if n_heads * self.head_dim % norm_groups:
            raise ConfigProblem(
                "norm_groups",
                f"n_heads · head_dim ({n_heads * self.head_dim}) must be a multiple of norm_groups ({norm_groups})",
                "change one",
            )
        if self.dt_max is not None and self.dt_max <= self.dt_min:
            raise ConfigProblem(
                "dt_max", f"dt_max ({self.dt_max:g}) must be above dt_min ({self.dt_min:g})", "raise it"
            )
        if self.norm_groups and self.norm is None:
            raise ConfigProblem(
                "norm_groups", "norm_groups divides what a norm reads, and norm is null", "leave it out"
            )
        if self.norm_before_gate and (self.norm is None or self.gate is None):
            raise ConfigProblem(
                "norm_before_gate", "norm_before_gate orders a norm and a gate, and one is null", "leave it out"
            )
        expand = n_heads * self.head_dim / dim
        derived = {"n_heads": n_heads, "expand": expand, "norm_groups": norm_groups if self.norm else None}
        return {field: value for field, value in derived.items() if getattr(self, field) is None}

    def _n_heads(self, dim: int) -> int:
        inner = round((self.expand or 2.0) * dim)
        if self.n_heads is None:
            if inner % self.head_dim:
                raise ConfigProblem(
                    "head_dim",
                    f"expand · dim ({inner}) must be a multiple of head_dim ({self.head_dim})",
                    "change it, or give n_heads",
                )
            return inner // self.head_dim
        if self.expand is not None and inner != self.n_heads * self.head_dim:
            raise ConfigProblem(
                "expand",
                f"n_heads · head_dim ({self.n_heads * self.head_dim}) is not expand · dim ({inner})",
                "leave expand out",
            )
        return self.n_heads


class Mamba2(Attention):
    """A selective state-space layer: what is kept, and for how long, depends on the token."""

    Config = Mamba2Config
    paper = "Dao & Gu 2024, arXiv:2405.21060"

    def __init__(
        self,
        config: Mamba2Config,
        dim: int,
        activation: Activation,
        norms: list[Norm],
        gate: Activation | None = None,
    ) -> None:
        super().__init__()
        assert config.n_heads, "set by derive"
        self.n_heads, self.head_dim = config.n_heads, config.head_dim
        self.n_groups, self.state_dim = config.n_groups, config.state_dim
        self.activation, self.gate, self.norms = activation, gate, nn.ModuleList(norms)
        self.norm_before_gate = config.norm_before_gate
        self.dt_min, self.dt_max = config.dt_min, config.dt_max
        inner, shared = self.n_heads * self.head_dim, self.n_groups * self.state_dim
        self.mixed = (inner, shared, shared)
        self.split = [inner if gate is not None else 0, sum(self.mixed), self.n_heads]
        self.project = Linear(dim, sum(self.split), bias=config.bias)  # rows: z, x, B, C, Δ
        self.conv_weight = nn.Parameter(torch.zeros(sum(self.mixed), 1, config.conv_width))  # (x, B, C channels, 1, W)
        self.conv_bias = nn.Parameter(torch.zeros(sum(self.mixed))) if config.conv_bias else None
        self.A_log = nn.Parameter(torch.zeros(self.n_heads))
        self.dt_bias = nn.Parameter(torch.zeros(self.n_heads))
        self.D = nn.Parameter(torch.ones(self.n_heads))
        self.out = OutLinear(inner, dim, bias=config.bias)

    @classmethod
    def parts(cls, config: Mamba2Config) -> Parts:
        assert config.n_heads, "set by derive"
        groups = config.norm_groups or 1
        norm = config.norm.at(size=config.n_heads * config.head_dim // groups) if config.norm else None
        return {
            "activation": config.activation.at(),
            "gate": config.gate.at() if config.gate else None,
            "norms": [norm] * groups if norm is not None else [],
        }

    def init_weights(self, std: float) -> None:
        bound = self.conv_weight.shape[-1] ** -0.5
        self.conv_weight.uniform_(-bound, bound)
        self.A_log.uniform_(*A_RANGE).log_()
        spread_steps(self.dt_bias, *DT_RANGE)

    def make_state(self, batch: int, length: int, dtype: torch.dtype, device: torch.device) -> LayerState:
        registers = {
            "state": (self.n_heads, self.state_dim, self.head_dim),
            "tail": (self.conv_weight.shape[-1] - 1, sum(self.mixed)),
        }
        wide = torch.promote_types(dtype, torch.float32)
        return LayerState(batch, length, dtype, device, registers=registers, register_dtype=wide)

    def forward(self, x: Tensor, context: Context, cache: LayerState | None = None) -> Tensor:
        z, mixed, dt = self.project(x).split_with_sizes(self.split, -1)
        tail = cache.read("tail") if cache is not None else None
        mixed, tail = causal_conv(mixed, self.conv_weight.squeeze(1), self.conv_bias, context.queries, tail)
        v, b, c = self.activation(mixed).split_with_sizes(self.mixed, -1)
        v = torch.unflatten(v, -1, (self.n_heads, -1)).transpose(1, 2)  # (B, H, T, Dh)
        b, c = (torch.unflatten(part, -1, (self.n_groups, -1)).transpose(1, 2) for part in (b, c))  # (B, G, T, N)
        wide = torch.promote_types(x.dtype, torch.float32)
        dt = F.softplus(dt.transpose(1, 2).to(wide) + self.dt_bias.to(wide).unsqueeze(-1))  # (B, H, T)
        if self.dt_min or self.dt_max is not None:
            dt = dt.clamp(self.dt_min, self.dt_max)
        log_decay = -self.A_log.to(wide).exp().unsqueeze(-1) * dt
        before = cache.read("state") if cache is not None else None
        y, state = linear_scan(c, b, v * dt.unsqueeze(-1), log_decay, context.queries, before)
        if cache is not None:
            cache.write("tail", tail)
            cache.write("state", state)
        y = y + v * self.D.to(wide).view(-1, 1, 1)
        out: Tensor = self.out(self._finish(y.to(x.dtype).transpose(1, 2).flatten(2), z))
        return out

    def _finish(self, y: Tensor, z: Tensor) -> Tensor:
        """Norm and gate, (B, T, H·Dh)"""
        if self.gate is None:
            return self._normed(y)
        return self._normed(y) * self.gate(z) if self.norm_before_gate else self._normed(y * self.gate(z))

    def _normed(self, y: Tensor) -> Tensor:
        if not self.norms:
            return y
        parts = [norm(part) for norm, part in zip(self.norms, y.chunk(len(self.norms), -1), strict=True)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


@hookimpl
def register_components(register: Register) -> None:
    register("mamba2", Mamba2)
