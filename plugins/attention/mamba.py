"""Mamba: a state-space model whose step, input and output depend on the token.

    h_t = exp(-exp(A) Δ_t) h_{t-1} + Δ_t B_t x_t,    y_t = h_t · C_t + D x_t,    out = W_o (y · silu(z))

for each channel by itself, with a state of `state_dim` numbers that each fade at their own pace. x is read after a
short convolution; B, C and a latent of Δ are read from x. Gu & Dao 2023, arXiv:2312.00752.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from lamina.core import (
    Activation,
    Attention,
    ComponentConfig,
    Context,
    LayerState,
    Linear,
    Norm,
    OutLinear,
    Part,
    Parts,
    Register,
    causal_conv,
    diagonal_scan,
    hookimpl,
    slot,
    spread_steps,
)

DT_RANGE = (1e-3, 1e-1)  # step sizes are drawn from here at the start, evenly by their logarithm


class MambaConfig(ComponentConfig):
    width: int | None = Field(None, gt=0, description="Channels of the recurrence. Default: 2 · dim.")
    state_dim: int = Field(16, gt=0, le=65_536, description="Numbers that each channel keeps.")
    dt_rank: int | None = Field(None, gt=0, description="Width of the latent of Δ. Default: dim / 16, rounded up.")
    conv_width: int = Field(
        4, gt=0, le=256, description="Tokens the short convolution reads, the token's own included."
    )
    conv_bias: bool = Field(True, description="A bias on the convolution.")
    bias: bool = Field(False, description="Biases on the projections in and out.")
    activation: Part = slot("activation", "silu", description="Applied after the convolution.")
    gate: Part | None = slot("activation", "silu", description="Applied to the gate z; null has no gate.")
    norm: Part | None = slot("norm", None, description="Norm on the latent of Δ, on B and on C, each by itself.")

    def derive(self, dim: int) -> dict[str, Any]:
        derived = {"width": 2 * dim, "dt_rank": math.ceil(dim / 16)}
        return {field: value for field, value in derived.items() if getattr(self, field) is None}


class Mamba(Attention):
    """A bank of leaky memories for every channel, opened and emptied by what is read."""

    Config = MambaConfig
    paper = "Gu & Dao 2023, arXiv:2312.00752"

    def __init__(
        self,
        config: MambaConfig,
        dim: int,
        activation: Activation,
        gate: Activation | None = None,
        dt_norm: Norm | None = None,
        b_norm: Norm | None = None,
        c_norm: Norm | None = None,
    ) -> None:
        super().__init__()
        assert config.width, "set by derive"
        assert config.dt_rank, "set by derive"
        self.width, self.state_dim = config.width, config.state_dim
        self.activation, self.gate = activation, gate
        self.dt_norm, self.b_norm, self.c_norm = dt_norm, b_norm, c_norm
        self.split = [config.dt_rank, self.state_dim, self.state_dim]
        self.project = Linear(dim, (2 if gate is not None else 1) * self.width, bias=config.bias)  # rows: x, z
        self.conv_weight = nn.Parameter(torch.zeros(self.width, 1, config.conv_width))
        self.conv_bias = nn.Parameter(torch.zeros(self.width)) if config.conv_bias else None
        self.select = Linear(self.width, sum(self.split), bias=False)  # rows: the latent of Δ, B, C
        self.dt_weight = nn.Parameter(torch.zeros(self.width, config.dt_rank))
        self.dt_bias = nn.Parameter(torch.zeros(self.width))
        # Laid out flat: optimizers take what has two axes for a matrix, to be shrunk or orthogonalised.
        self.A_log = nn.Parameter(torch.zeros(self.width * self.state_dim))
        self.D = nn.Parameter(torch.ones(self.width))
        self.out = OutLinear(self.width, dim, bias=config.bias)

    @classmethod
    def parts(cls, config: MambaConfig) -> Parts:
        norms = {
            name: config.norm.at(size=size) if config.norm else None
            for name, size in (("dt_norm", config.dt_rank), ("b_norm", config.state_dim), ("c_norm", config.state_dim))
        }
        gate = config.gate.at() if config.gate else None
        return {"activation": config.activation.at(), "gate": gate, **norms}

    def init_weights(self, std: float) -> None:
        bound = self.conv_weight.shape[-1] ** -0.5
        self.conv_weight.uniform_(-bound, bound)
        bound = self.dt_weight.shape[1] ** -0.5
        self.dt_weight.uniform_(-bound, bound)
        spread_steps(self.dt_bias, *DT_RANGE)
        self.A_log.copy_(torch.arange(1, self.state_dim + 1, device=self.A_log.device).log().repeat(self.width))

    def make_state(self, batch: int, length: int, dtype: torch.dtype, device: torch.device) -> LayerState:
        registers = {"state": (self.width, self.state_dim), "tail": (self.conv_weight.shape[-1] - 1, self.width)}
        wide = torch.promote_types(dtype, torch.float32)
        return LayerState(batch, length, dtype, device, registers=registers, register_dtype=wide)

    def forward(self, x: Tensor, context: Context, cache: LayerState | None = None) -> Tensor:
        projected = self.project(x)
        tail = cache.read("tail") if cache is not None else None
        mixed, tail = causal_conv(
            projected[..., : self.width], self.conv_weight.squeeze(1), self.conv_bias, context.queries, tail
        )
        mixed = self.activation(mixed)  # (B, T, width)
        dt, b, c = self._select(mixed)
        wide = torch.promote_types(x.dtype, torch.float32)
        rates = self.A_log.to(wide).exp().view(self.width, -1)
        decay = (dt.unsqueeze(-1) * -rates).exp()  # (B, T, width, N)
        added = (dt * mixed).unsqueeze(-1) * b.to(wide).unsqueeze(2)
        before = cache.read("state") if cache is not None else None
        h, state = diagonal_scan(decay, added, context.queries, before)
        if cache is not None:
            cache.write("tail", tail)
            cache.write("state", state)
        y = (h * c.to(wide).unsqueeze(2)).sum(-1) + self.D.to(wide) * mixed
        y = y.to(x.dtype)
        out: Tensor = self.out(y if self.gate is None else y * self.gate(projected[..., self.width :]))
        return out

    def _select(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Δ (B, T, width) in float32 or wider, B and C (B, T, N)"""
        dt, b, c = self.select(x).split_with_sizes(self.split, -1)
        if self.dt_norm is not None and self.b_norm is not None and self.c_norm is not None:
            dt, b, c = self.dt_norm(dt), self.b_norm(b), self.c_norm(c)
        dt = F.linear(dt, self.dt_weight)
        wide = torch.promote_types(dt.dtype, torch.float32)
        return F.softplus(dt.to(wide) + self.dt_bias.to(wide)), b, c


@hookimpl
def register_components(register: Register) -> None:
    register("mamba", Mamba)
