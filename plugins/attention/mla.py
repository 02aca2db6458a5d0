"""Multi-head latent attention: keys and values are read out of one short latent a token, and only that is kept.

DeepSeek-AI 2024 (DeepSeek-V2), arXiv:2405.04434, section 2.1. With c the normed latent of a token and r its one rotated
key, shared by all heads:

    score = (q_nope · W_k c + q_rope · r) · scale,    value = W_v c

A single token's query is taken to the latent instead (q_nope · W_k c = W_kᵀ q_nope · c), so that decoding reads the
latents once for all heads and expands none of them.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from lamina.core import (
    Attention,
    Bias,
    ComponentConfig,
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


class MLAConfig(ComponentConfig):
    n_heads: int = Field(gt=0, le=65_536, description="Attention heads.")
    kv_lora_rank: int = Field(gt=0, description="Width of the latent that keys and values are read from.")
    q_lora_rank: int | None = Field(None, gt=0, description="Width of a latent for the queries; null has none.")
    qk_nope_head_dim: int = Field(gt=0, description="Channels of a head's query and key without position.")
    qk_rope_head_dim: int = Field(gt=0, le=65_536, description="Channels with position, their key shared by all heads.")
    v_head_dim: int = Field(gt=0, description="Width of a head's value.")
    bias: bool = Field(False, description="Biases on the projections down to the latents and on the output.")
    norm: Part = slot("norm", "rms", description="Norm on the latents.")
    mask: Part = slot("mask", "causal", description="Which keys a query sees.")
    scale: float | None = Field(None, gt=0, description="Multiplies the scores. Default: 1 / sqrt(nope + rope width).")

    def derive(self) -> dict[str, Any]:
        width = self.qk_nope_head_dim + self.qk_rope_head_dim
        return {"scale": width**-0.5} if self.scale is None else {}


class MLA(Attention):
    """Heads as many as in multi-head attention, with a cache of one latent and one rotated key a token."""

    Config = MLAConfig
    paper = "DeepSeek-AI 2024, arXiv:2405.04434"

    def __init__(
        self, config: MLAConfig, dim: int, position: Position, mask: Mask, kv_norm: Norm, q_norm: Norm | None = None
    ) -> None:
        super().__init__()
        self.n_heads, self.rank, self.scale = config.n_heads, config.kv_lora_rank, config.scale
        self.nope_dim, self.rope_dim, self.v_dim = config.qk_nope_head_dim, config.qk_rope_head_dim, config.v_head_dim
        self.mask, self.kv_norm, self.q_norm = mask, kv_norm, q_norm
        self.position = position
        self.biased, self.meets = ("scores" in position.acts_at()), ("visible_keys" in position.acts_at())
        self.q_down = Linear(dim, config.q_lora_rank, bias=config.bias) if config.q_lora_rank else None
        self.q_up = Linear(config.q_lora_rank or dim, self.n_heads * (self.nope_dim + self.rope_dim), bias=False)
        self.kv_down = Linear(dim, self.rank + self.rope_dim, bias=config.bias)  # rows: latent, rotated key
        self.kv_up = Linear(self.rank, self.n_heads * (self.nope_dim + self.v_dim), bias=False)  # per head: key, value
        self.out = OutLinear(self.n_heads * self.v_dim, dim, bias=config.bias)

    @classmethod
    def parts(cls, config: MLAConfig) -> Parts:
        q_norm = config.norm.at(size=config.q_lora_rank) if config.q_lora_rank else None
        return {"mask": config.mask.at(), "kv_norm": config.norm.at(size=config.kv_lora_rank), "q_norm": q_norm}

    @classmethod
    def provides(cls, config: MLAConfig) -> frozenset[str]:
        return frozenset({"queries_keys", "visible_keys", "scores", "mask"})

    @classmethod
    def position_sizes(cls, config: MLAConfig) -> dict[str, int]:
        return {"head_dim": config.qk_rope_head_dim, "n_heads": config.n_heads}

    def carriers(self) -> list[Tensor]:
        values = self.kv_up.weight.view(self.n_heads, -1, self.rank)[:, self.nope_dim :]
        return [values, self.out.weight]

    def make_state(self, batch: int, length: int, dtype: torch.dtype, device: torch.device) -> LayerState:
        # Latent and rotated key lie side by side: together they are the key of the absorbed form.
        streams = {"latent": (self.rank + self.rope_dim,)}
        return LayerState(batch, length, dtype, device, streams=streams, window=self.mask.reach)

    def forward(self, x: Tensor, context: Context, cache: LayerState | None = None) -> Tensor:
        batch, length, _ = x.shape
        if self.q_down is not None and self.q_norm is not None:
            q = self.q_up(self.q_norm(self.q_down(x)))
        else:
            q = self.q_up(x)
        q = q.view(batch, length, self.n_heads, -1).transpose(1, 2)
        q_nope, q_rope = q.split_with_sizes([self.nope_dim, self.rope_dim], -1)  # (B, H, T, nope), (B, H, T, rope)
        latent, k_rope = self.kv_down(x).split_with_sizes([self.rank, self.rope_dim], -1)
        q_rope, k_rope = self.position.rotate(q_rope, k_rope.unsqueeze(1), context)  # (B, 1, T, rope)
        kept, keys = torch.cat([self.kv_norm(latent), k_rope.squeeze(1)], -1), context.queries  # (B, T, rank + rope)
        if cache is not None:
            (kept,) = cache.append(latent=kept)
            keys = context.once(("keys", cache.capacity), lambda: cache.keys(length))
        if self.meets:
            latent, k_rope = kept.split_with_sizes([self.rank, self.rope_dim], -1)
            q_rope, k_rope = self.position.meet(q_rope, k_rope.unsqueeze(1), context.queries, keys)
            kept = torch.cat([latent, k_rope.squeeze(1)], -1)
        bias = self.position.bias(q_rope, context.queries, keys) if self.biased else None
        absorb = cache is not None and length == 1 and self._can_absorb()
        mixed = (self._absorbed if absorb else self._expanded)(q_nope, q_rope, kept, context.queries, keys, bias)
        projected: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, length, -1))
        return projected

    def _expanded(
        self, q_nope: Tensor, q_rope: Tensor, kept: Tensor, queries: Span, keys: Span, bias: Bias | None
    ) -> Tensor:
        """Every head's keys and values written out. -> (B, H, T, v)"""
        latent, k_rope = kept.split_with_sizes([self.rank, self.rope_dim], -1)
        heads = self.kv_up(latent).view(*kept.shape[:2], self.n_heads, -1).transpose(1, 2)
        k_nope, v = heads.split_with_sizes([self.nope_dim, self.v_dim], -1)  # (B, H, S, nope), (B, H, S, v)
        k = torch.cat([k_nope, k_rope.unsqueeze(1).expand(-1, self.n_heads, -1, -1)], -1)
        q = torch.cat([q_nope, q_rope], -1)
        return attend(q, k, v, mask=self.mask, queries=queries, keys=keys, bias=bias, scale=self.scale)

    def _absorbed(
        self, q_nope: Tensor, q_rope: Tensor, kept: Tensor, queries: Span, keys: Span, bias: Bias | None
    ) -> Tensor:
        """All heads against the latents themselves, which are one key and value head. -> (B, H, T, v)"""
        weight: Tensor = self.kv_up.weight.view(self.n_heads, -1, self.rank)
        k_up, v_up = weight.split_with_sizes([self.nope_dim, self.v_dim], 1)
        q = torch.cat([q_nope @ k_up, q_rope], -1)  # (B, H, T, rank + rope)
        k = kept.unsqueeze(1)  # (B, 1, S, rank + rope)
        mixed = attend(q, k, k, mask=self.mask, queries=queries, keys=keys, bias=bias, scale=self.scale)
        return mixed[..., : self.rank] @ v_up.transpose(1, 2)

    def _can_absorb(self) -> bool:
        # A backend may have put another form of matrix in place; calling that is always right, reading it is not.
        return type(self.kv_up) is Linear and type(self.kv_up.weight) is nn.Parameter


@hookimpl
def register_components(register: Register) -> None:
    register("mla", MLA)
