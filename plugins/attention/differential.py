"""Differential attention: two softmax maps a head, the second subtracted from the first, so that noise cancels.

Ye et al. 2024, arXiv:2410.05258, section 2.1. A head has queries q1, q2, keys k1, k2 and one value v of twice their
width:

    out = (softmax(q1·k1ᵀ · scale) - λ · softmax(q2·k2ᵀ · scale)) · v
    λ   = exp(λ_q1 · λ_k1) - exp(λ_q2 · λ_k2) + λ_init,    λ_init = 0.8 - 0.6 · exp(-0.3 · layer)

with layers counted from 0. Each head's output is normed by itself and scaled by 1 - λ_init before the projection.
Keys and values may be shared by groups of heads, as in grouped-query attention.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from lamina.core import (
    Attention,
    ComponentConfig,
    ConfigProblem,
    Context,
    LayerState,
    Linear,
    Mask,
    Norm,
    OutLinear,
    Part,
    Parts,
    Position,
    Register,
    Span,
    attend,
    hookimpl,
    slot,
)


class DifferentialConfig(ComponentConfig):
    n_heads: int = Field(gt=0, le=65_536, description="Heads, each of two queries.")
    n_kv_heads: int | None = Field(
        None, gt=0, le=65_536, description="Heads of keys, two keys each, and of values. Default: n_heads."
    )
    head_dim: int | None = Field(
        None,
        gt=0,
        le=65_536,
        description="Width of a query and of a key; values are twice as wide. Default: dim / (2 · n_heads).",
    )
    bias: bool = Field(False, description="Biases on the projections to queries, keys and values.")
    out_bias: bool | None = Field(None, description="A bias on the output projection. Default: as `bias`.")
    mask: Part = slot("mask", "causal", description="Which keys a query sees.")
    qk_norm: Part | None = slot("norm", None, description="Norm on each query and key, before the position.")
    norm: Part = slot("norm", {"name": "rms", "eps": 1e-5}, description="Norm on each head's output.")
    lambda_init: float | Literal["depth"] = Field(
        "depth", description="What λ starts from; depth is 0.8 - 0.6 · exp(-0.3 · layer)."
    )
    scale: float | None = Field(None, gt=0, description="Multiplies the scores. Default: 1 / sqrt(head_dim).")

    def derive(self, dim: int) -> dict[str, Any]:
        n_kv_heads = self.n_kv_heads or self.n_heads
        if self.n_heads % n_kv_heads:
            divisors = [n for n in range(1, self.n_heads + 1) if self.n_heads % n == 0]
            raise ConfigProblem(
                "n_kv_heads",
                f"n_heads ({self.n_heads}) must be a multiple of n_kv_heads ({n_kv_heads})",
                f"use one of {', '.join(map(str, divisors))}",
            )
        if self.head_dim is None and dim % (2 * self.n_heads):
            raise ConfigProblem(
                "n_heads",
                f"dim ({dim}) must be a multiple of 2 · n_heads ({2 * self.n_heads})",
                "change it, or give head_dim",
            )
        head_dim = self.head_dim or dim // (2 * self.n_heads)
        derived = {"n_kv_heads": n_kv_heads, "head_dim": head_dim, "out_bias": self.bias, "scale": head_dim**-0.5}
        return {field: value for field, value in derived.items() if getattr(self, field) is None}


class Differential(Attention):
    """The difference of two attention maps, each with queries and keys of its own, over the same values."""

    Config = DifferentialConfig
    paper = "Ye et al. 2024, arXiv:2410.05258"

    def __init__(
        self,
        config: DifferentialConfig,
        dim: int,
        layer: int,
        position: Position,
        mask: Mask,
        norm: Norm,
        q_norm: Norm | None = None,
        k_norm: Norm | None = None,
    ) -> None:
        super().__init__()
        assert config.n_kv_heads, "set by derive"
        assert config.head_dim, "set by derive"
        assert config.out_bias is not None, "set by derive"
        self.n_heads, self.n_kv_heads, self.head_dim = config.n_heads, config.n_kv_heads, config.head_dim
        self.scale = config.scale
        self.mask, self.norm, self.q_norm, self.k_norm = mask, norm, q_norm, k_norm
        self.position = position
        self.biased = "scores" in position.acts_at()
        by_depth = config.lambda_init == "depth"
        self.lambda_init = 0.8 - 0.6 * math.exp(-0.3 * layer) if by_depth else float(config.lambda_init)
        # Rows: all first queries, all second ones, first keys, second keys, values.
        self.split = [n * self.head_dim for n in (*[self.n_heads] * 2, *[self.n_kv_heads] * 2, 2 * self.n_kv_heads)]
        self.qkv = Linear(dim, sum(self.split), bias=config.bias)
        self.lambda_q1, self.lambda_k1, self.lambda_q2, self.lambda_k2 = (
            nn.Parameter(torch.zeros(self.head_dim)) for _ in range(4)
        )
        self.out = OutLinear(self.n_heads * 2 * self.head_dim, dim, bias=config.out_bias)

    @classmethod
    def parts(cls, config: DifferentialConfig) -> Parts:
        assert config.head_dim, "set by derive"
        qk_norm = config.qk_norm.at(size=config.head_dim) if config.qk_norm else None
        norm = config.norm.at(size=2 * config.head_dim)
        return {"mask": config.mask.at(), "norm": norm, "q_norm": qk_norm, "k_norm": qk_norm}

    @classmethod
    def provides(cls, config: DifferentialConfig) -> frozenset[str]:
        return frozenset({"queries_keys", "visible_keys", "scores", "mask"})

    @classmethod
    def position_sizes(cls, config: DifferentialConfig) -> dict[str, int]:
        assert config.head_dim, "set by derive"
        return {"head_dim": config.head_dim, "n_heads": config.n_heads}

    def init_weights(self, std: float) -> None:
        for parameter in (self.lambda_q1, self.lambda_k1, self.lambda_q2, self.lambda_k2):
            nn.init.normal_(parameter, std=0.1)

    def carriers(self) -> list[Tensor]:
        return [self.qkv.weight.split_with_sizes(self.split)[-1], self.out.weight]

    def make_state(self, batch: int, length: int, dtype: torch.dtype, device: torch.device) -> LayerState:
        key, value = (self.n_kv_heads, self.head_dim), (self.n_kv_heads, 2 * self.head_dim)
        streams = {"k1": key, "k2": key, "v": value}
        return LayerState(batch, length, dtype, device, streams=streams, window=self.mask.reach)

    def forward(self, x: Tensor, context: Context, cache: LayerState | None = None) -> Tensor:
        batch, length, _ = x.shape
        q1, q2, k1, k2, v = (
            part.unflatten(-1, (heads, -1)).transpose(1, 2)
            for part, heads in zip(
                self.qkv(x).split_with_sizes(self.split, -1),
                (*[self.n_heads] * 2, *[self.n_kv_heads] * 3),
                strict=True,
            )
        )  # (B, H, T, Dh) twice, (B, K, T, Dh) twice, (B, K, T, 2·Dh)
        q1, k1 = self._place(q1, k1, context)
        q2, k2 = self._place(q2, k2, context)
        keys = context.queries
        if cache is not None:
            k1, k2, v = cache.append(k1=k1, k2=k2, v=v)
            keys = context.once(("keys", cache.capacity), lambda: cache.keys(length))
        first, second = (self._read(q, k, v, context.queries, keys) for q, k in ((q1, k1), (q2, k2)))
        mixed = self.norm(first - self._weight().to(first.dtype) * second) * (1 - self.lambda_init)  # (B, H, T, 2·Dh)
        projected: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, length, -1))
        return projected

    def _place(self, q: Tensor, k: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        return self.position.rotate(q, k, context)

    def _read(self, q: Tensor, k: Tensor, v: Tensor, queries: Span, keys: Span) -> Tensor:
        """Values through one of the two maps, (B, H, T, 2·Dh)."""
        q, k = self.position.meet(q, k, queries, keys)
        bias = self.position.bias(q, queries, keys) if self.biased else None
        return attend(q, k, v, mask=self.mask, queries=queries, keys=keys, bias=bias, scale=self.scale)

    def _weight(self) -> Tensor:
        """λ, in float32 or wider: what the second map is multiplied by."""
        wide = torch.promote_types(self.lambda_q1.dtype, torch.float32)
        q1, k1, q2, k2 = (p.to(wide) for p in (self.lambda_q1, self.lambda_k1, self.lambda_q2, self.lambda_k2))
        return (q1 * k1).sum().exp() - (q2 * k2).sum().exp() + self.lambda_init


@hookimpl
def register_components(register: Register) -> None:
    register("differential", Differential)
