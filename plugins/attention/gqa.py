"""Grouped-query attention: softmax(q·kᵀ · scale) · v, with several query heads to each head of keys and values.

Ainslie et al. 2023, arXiv:2305.13245. `n_kv_heads` equal to `n_heads` is multi-head attention (Vaswani et al. 2017,
arXiv:1706.03762), 1 is multi-query attention (Shazeer 2019, arXiv:1911.02150).
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

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
    attend,
    hookimpl,
    slot,
)


class GQAConfig(ComponentConfig):
    n_heads: int = Field(gt=0, le=65_536, description="Query heads.")
    n_kv_heads: int | None = Field(None, gt=0, le=65_536, description="Heads of keys and values. Default: n_heads.")
    head_dim: int | None = Field(None, gt=0, le=65_536, description="Width of a head. Default: dim / n_heads.")
    bias: bool = Field(False, description="Biases on the projections to queries, keys and values.")
    out_bias: bool | None = Field(None, description="A bias on the output projection. Default: as `bias`.")
    mask: Part = slot("mask", "causal", description="Which keys a query sees.")
    qk_norm: Part | None = slot("norm", None, description="Norm on each head of queries and keys, before the position.")
    scale: float | None = Field(None, gt=0, description="Multiplies the scores. Default: 1 / sqrt(head_dim).")
    softcap: float | None = Field(None, gt=0, description="Scores s become c·tanh(s / c) for this c; null leaves them.")

    def derive(self, dim: int) -> dict[str, Any]:  # type: ignore[override]
        n_kv_heads = self.n_kv_heads or self.n_heads
        if self.n_heads % n_kv_heads:
            divisors = [n for n in range(1, self.n_heads + 1) if self.n_heads % n == 0]
            raise ConfigProblem(
                "n_kv_heads",
                f"n_heads ({self.n_heads}) must be a multiple of n_kv_heads ({n_kv_heads})",
                f"use one of {', '.join(map(str, divisors))}",
            )
        if self.head_dim is None and dim % self.n_heads:
            raise ConfigProblem(
                "n_heads", f"dim ({dim}) must be a multiple of n_heads ({self.n_heads})", "change it, or give head_dim"
            )
        head_dim = self.head_dim or dim // self.n_heads
        derived = {"n_kv_heads": n_kv_heads, "head_dim": head_dim, "out_bias": self.bias, "scale": head_dim**-0.5}
        return {field: value for field, value in derived.items() if getattr(self, field) is None}


class GQA(Attention):
    """Each group of query heads reads one head of keys and values, so that the cache holds fewer of them."""

    Config = GQAConfig
    paper = "Ainslie et al. 2023, arXiv:2305.13245"

    def __init__(
        self,
        config: GQAConfig,
        dim: int,
        position: Position,
        mask: Mask,
        q_norm: Norm | None = None,
        k_norm: Norm | None = None,
    ) -> None:
        super().__init__()
        assert config.n_kv_heads, "set by derive"
        assert config.head_dim, "set by derive"
        assert config.out_bias is not None, "set by derive"
        self.n_heads, self.n_kv_heads, self.head_dim = config.n_heads, config.n_kv_heads, config.head_dim
        self.scale, self.softcap = config.scale, config.softcap
        self.mask, self.q_norm, self.k_norm = mask, q_norm, k_norm
        self.position = position
        self.biased = "scores" in position.acts_at()
        self.split = (self.n_heads, self.n_kv_heads, self.n_kv_heads)
        self.qkv = Linear(dim, sum(self.split) * self.head_dim, bias=config.bias)  # rows: queries, keys, values
        self.out = OutLinear(self.n_heads * self.head_dim, dim, bias=config.out_bias)

    @classmethod
    def parts(cls, config: GQAConfig) -> Parts:
        norm = config.qk_norm.at(size=config.head_dim) if config.qk_norm else None
        return {"mask": config.mask.at(), "q_norm": norm, "k_norm": norm}

    @classmethod
    def provides(cls, config: GQAConfig) -> frozenset[str]:
        return frozenset({"queries_keys", "scores", "mask"})

    @classmethod
    def position_sizes(cls, config: GQAConfig) -> dict[str, int]:
        assert config.head_dim, "set by derive"
        return {"head_dim": config.head_dim, "n_heads": config.n_heads}

    def make_state(self, batch: int, length: int, dtype: torch.dtype, device: torch.device) -> LayerState:
        entry = (self.n_kv_heads, self.head_dim)
        return LayerState(batch, length, dtype, device, streams={"k": entry, "v": entry}, window=self.mask.reach)

    def forward(self, x: Tensor, context: Context, cache: LayerState | None = None) -> Tensor:
        batch, length, _ = x.shape
        heads = self.qkv(x).view(batch, length, -1, self.head_dim).transpose(1, 2)  # (B, H + 2K, T, Dh)
        q, k, v = heads.split(self.split, 1)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = self.position.rotate(q, k, context)
        keys = context.queries
        if cache is not None:
            # Keys are rotated before they are kept: a kept key stands at its own position for ever.
            k, v = cache.append(k=k, v=v)
            keys = context.once(("keys", cache.capacity), lambda: cache.keys(length))
        bias = self.position.bias(q, context.queries, keys) if self.biased else None
        mixed = attend(
            q,
            k,
            v,
            mask=self.mask,
            queries=context.queries,
            keys=keys,
            bias=bias,
            scale=self.scale,
            softcap=self.softcap,
        )  # (B, H, T, Dh)
        projected: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, length, -1))
        return projected


@hookimpl
def register_components(register: Register) -> None:
    register("gqa", GQA)
