"""Grouped-query attention: softmax(q·kᵀ · scale) · v, with several query heads to each head of keys and values.

Ainslie et al. 2023, arXiv:2305.13245. `n_kv_heads` equal to `n_heads` is multi-head attention (Vaswani et al. 2017,
arXiv:1706.03762), 1 is multi-query attention (Shazeer 2019, arXiv:1911.02150). What families add to it, in this order:

    q, k, v = clip(norm(W x)), then the position        clip and norms: OLMo, Qwen3, Gemma 3n
    mixed   = softmax over keys and a sink, of capped scores     gpt-oss; Gemma 2; sharper far on: Llama 4
    y       = W_o (norm(mixed) · gate(W_g x))             BitNet; Qwen3-Next, arXiv:2505.06708

Layers may share keys and values (Brandon et al. 2024, arXiv:2405.12981; YOCO, arXiv:2405.05254; Gemma 3n): one keeps
them under a name (`keep_kv`), later ones have none of their own and read those (`share_kv`), cached ones included.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from lamina.core import (
    Attention,
    CannotLower,
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
    Program,
    Register,
    Rotary,
    Rows,
    Span,
    attend,
    hookimpl,
    lowering,
    slot,
)

GATES: Mapping[str, Callable[[Tensor], Tensor]] = {"sigmoid": torch.sigmoid, "softplus": F.softplus}


class GQAConfig(ComponentConfig):
    n_heads: int = Field(gt=0, le=65_536, description="Query heads.")
    n_kv_heads: int | None = Field(None, gt=0, le=65_536, description="Heads of keys and values. Default: n_heads.")
    head_dim: int | None = Field(None, gt=0, le=65_536, description="Width of a head. Default: dim / n_heads.")
    value_dim: int | None = Field(None, gt=0, le=65_536, description="Width of a head's value. Default: head_dim.")
    bias: bool = Field(False, description="Biases on the projections to queries, keys and values.")
    out_bias: bool | None = Field(None, description="A bias on the output projection. Default: as `bias`.")
    mask: Part = slot("mask", "causal", description="Which keys a query sees.")
    qk_norm: Part | None = slot("norm", None, description="Norm on queries and on keys.")
    qk_norm_over: Literal["head", "all"] = Field(
        "head", description="What qk_norm takes together: each head, or the heads of queries, or of keys, side by side."
    )
    qk_norm_at: Literal["before", "after"] = Field(
        "before", description="Whether qk_norm comes before the position acts or after."
    )
    v_norm: Part | None = slot("norm", None, description="Norm on each head of values.")
    clip: float | None = Field(
        None, gt=0, description="Queries, keys and values, normed or not, are held within ±clip; null leaves them."
    )
    scale: float | None = Field(None, gt=0, description="Multiplies the scores. Default: 1 / sqrt(head_dim).")
    temperature: float | None = Field(
        None,
        gt=0,
        description="Queries are multiplied by 1 + temperature · log(1 + floor((position + 1) / "
        "temperature_length)), so that long texts do not blur; null leaves them.",
    )
    temperature_length: int = Field(8192, gt=0, description="Tokens after which the temperature first acts.")
    softcap: float | None = Field(None, gt=0, description="Scores s become c·tanh(s / c) for this c; null leaves them.")
    sinks: bool = Field(False, description="A learned logit a head that takes part in the softmax and adds nothing.")
    out_norm: Part | None = slot("norm", None, description="Norm on the mixed heads side by side, before the gate.")
    gate: Literal["element", "head"] | None = Field(
        None, description="A gate computed from x on the mixed heads: one for each channel or one for each head."
    )
    gate_activation: Literal["sigmoid", "softplus"] = Field("sigmoid", description="Makes the gate of its projection.")
    gate_bias: bool | None = Field(None, description="A bias on the gate's projection. Default: as `bias`.")
    keep_kv: str | None = Field(
        None, min_length=1, max_length=100, description="Keep keys and values for later layers, under this name."
    )
    share_kv: str | None = Field(
        None, min_length=1, max_length=100, description="Read those the last layer kept under this name; have none."
    )

    def derive(self, dim: int) -> dict[str, Any]:
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
        self._check_idle()
        head_dim = self.head_dim or dim // self.n_heads
        derived = {"n_kv_heads": n_kv_heads, "head_dim": head_dim, "value_dim": head_dim, "scale": head_dim**-0.5}
        derived |= {"out_bias": self.bias, "gate_bias": self.bias and self.gate is not None}
        return {field: value for field, value in derived.items() if getattr(self, field) is None}

    def _check_idle(self) -> None:
        """Refuse options that would do nothing beside the others."""
        idle = {
            "qk_norm_over": self.qk_norm is None and self.qk_norm_over != "head" and "without qk_norm",
            "qk_norm_at": self.qk_norm is None and self.qk_norm_at != "before" and "without qk_norm",
            "temperature_length": self.temperature is None
            and self.temperature_length != 8192
            and "without a temperature",
            "gate_activation": self.gate is None and self.gate_activation != "sigmoid" and "without a gate",
            "gate_bias": self.gate is None and bool(self.gate_bias) and "without a gate",
            "v_norm": self.share_kv is not None and self.v_norm is not None and "where values are another layer's",
            "keep_kv": self.share_kv is not None and self.keep_kv is not None and "where they are another layer's",
        }
        for field, why in idle.items():
            if why:
                raise ConfigProblem(field, f"{field} has no meaning {why}", "remove it")


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
        v_norm: Norm | None = None,
        out_norm: Norm | None = None,
    ) -> None:
        super().__init__()
        assert config.n_kv_heads, "set by derive"
        assert config.head_dim, "set by derive"
        assert config.value_dim, "set by derive"
        assert config.out_bias is not None, "set by derive"
        assert config.gate_bias is not None, "set by derive"
        self.n_heads, self.n_kv_heads = config.n_heads, config.n_kv_heads
        self.head_dim, self.value_dim = config.head_dim, config.value_dim
        self.scale, self.softcap, self.clip = config.scale, config.softcap, config.clip
        self.temperature, self.temperature_length = config.temperature, config.temperature_length
        self.norm_all, self.norm_after = config.qk_norm_over == "all", config.qk_norm_at == "after"
        self.mask, self.q_norm, self.k_norm, self.v_norm, self.out_norm = mask, q_norm, k_norm, v_norm, out_norm
        self.position = position
        self.biased = "scores" in position.acts_at()
        self.kept_as = None if config.keep_kv is None else _key(config.keep_kv)
        self.shared = None if config.share_kv is None else _key(config.share_kv)
        queries, keys = self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        self.split = (queries,) if self.shared else (queries, keys, self.n_kv_heads * self.value_dim)
        self.qkv = Linear(dim, sum(self.split), bias=config.bias)  # rows: queries, keys, values
        self.sinks = nn.Parameter(torch.zeros(self.n_heads)) if config.sinks else None
        self.gate, self.gate_activation = None, GATES[config.gate_activation]
        if config.gate is not None:
            per_head = self.value_dim if config.gate == "element" else 1
            self.gate = Linear(dim, self.n_heads * per_head, bias=config.gate_bias)
        self.out = OutLinear(self.n_heads * self.value_dim, dim, bias=config.out_bias)

    @classmethod
    def parts(cls, config: GQAConfig) -> Parts:
        assert config.n_kv_heads, "set by derive"
        assert config.head_dim, "set by derive"
        assert config.value_dim, "set by derive"
        norm, together = config.qk_norm, config.qk_norm_over == "all"
        q_size = config.head_dim * (config.n_heads if together else 1)
        k_size = config.head_dim * (config.n_kv_heads if together else 1)
        return {
            "mask": config.mask.at(),
            "q_norm": norm.at(size=q_size) if norm else None,
            "k_norm": norm.at(size=k_size) if norm and config.share_kv is None else None,
            "v_norm": config.v_norm.at(size=config.value_dim) if config.v_norm else None,
            "out_norm": config.out_norm.at(size=config.n_heads * config.value_dim) if config.out_norm else None,
        }

    @classmethod
    def provides(cls, config: GQAConfig) -> frozenset[str]:
        return frozenset({"queries_keys", "visible_keys", "scores", "mask"})

    @classmethod
    def leaves(cls, config: GQAConfig, position: Part) -> Mapping[str, Mapping[str, Any]]:
        return {} if config.keep_kv is None else {_key(config.keep_kv): _facts(config, position)}

    @classmethod
    def reads(cls, config: GQAConfig, position: Part) -> Mapping[str, Mapping[str, Any]]:
        return {} if config.share_kv is None else {_key(config.share_kv): _facts(config, position)}

    @classmethod
    def position_sizes(cls, config: GQAConfig) -> dict[str, int]:
        assert config.head_dim, "set by derive"
        return {"head_dim": config.head_dim, "n_heads": config.n_heads}

    def carriers(self) -> list[Tensor]:
        values = () if self.shared else (self.qkv.weight.split_with_sizes(self.split)[-1],)
        return [*values, self.out.weight]

    def make_state(self, batch: int, length: int, dtype: torch.dtype, device: torch.device) -> LayerState:
        streams = {"k": (self.n_kv_heads, self.head_dim), "v": (self.n_kv_heads, self.value_dim)}
        kept = {} if self.shared else streams
        return LayerState(batch, length, dtype, device, streams=kept, window=self.mask.reach)

    def forward(self, x: Tensor, context: Context, cache: LayerState | None = None) -> Tensor:
        batch, length, _ = x.shape
        q, k, v, keys = self._read(x, context) if self.shared else self._project(x, context, cache)
        if self.temperature is not None:
            q = q * self._sharpness(self.temperature, context.queries).to(q.dtype)
        q, k = self.position.meet(q, k, context.queries, keys)
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
            sinks=self.sinks,
        ).transpose(1, 2)  # (B, T, H, Dv)
        if self.out_norm is not None:
            mixed = self.out_norm(mixed.reshape(batch, length, -1)).view(batch, length, self.n_heads, -1)
        if self.gate is not None:
            gate = self.gate_activation(self.gate(x)).view(batch, length, self.n_heads, -1)  # (B, T, H, Dv or 1)
            mixed = mixed * gate
        projected: Tensor = self.out(mixed.reshape(batch, length, -1))
        return projected

    def lower(self, program: Program, x: Rows, layer: int) -> Rows:
        unsaid = (self.shared, self.kept_as, self.temperature, self.gate, self.v_norm, self.out_norm)
        if any(option is not None for option in unsaid) or self.position.acts_at() & {"visible_keys", "scores"}:
            raise CannotLower("an option of gqa, or a position, that acts on scores or between layers")
        turns = (
            lowering(self.position, *Rotary.mirrored)(program) if "queries_keys" in self.position.acts_at() else None
        )
        if self.norm_after and turns is not None and (self.q_norm is not None or self.k_norm is not None):
            raise CannotLower("a norm after the position")
        qkv = program.linear(x, self.qkv)
        heads = (self.n_heads, self.n_kv_heads)
        queries, keys = self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        q, k = qkv.part(0, queries), qkv.part(queries, keys)
        for norm, part, n in zip((self.q_norm, self.k_norm), (q, k), heads, strict=True):
            if norm is not None:
                lowering(norm)(program, part, out=part, heads=1 if self.norm_all else n)
        if self.clip is not None:
            program.clamp(qkv, self.clip)
        mixed = program.attend(
            qkv,
            layer,
            mask=self.mask,
            turns=turns,
            n_heads=self.n_heads,
            n_kv_heads=self.n_kv_heads,
            head_dim=self.head_dim,
            value_dim=self.value_dim,
            scale=self.scale or self.head_dim**-0.5,
            softcap=self.softcap,
            sinks=self.sinks,
        )
        return program.linear(mixed, self.out)

    def _project(self, x: Tensor, context: Context, cache: LayerState | None) -> tuple[Tensor, Tensor, Tensor, Span]:
        """Queries (B, H, T, Dh), all visible keys (B, K, S, Dh) and values (B, K, S, Dv), and where those stand."""
        q, k, v = (
            part.unflatten(-1, (heads, -1)).transpose(1, 2)
            for part, heads in zip(
                self.qkv(x).split_with_sizes(self.split, -1),
                (self.n_heads, self.n_kv_heads, self.n_kv_heads),
                strict=True,
            )
        )
        if not self.norm_after:
            q, k = self._norm(self.q_norm, q), self._norm(self.k_norm, k)
        v = v if self.v_norm is None else self.v_norm(v)
        if self.clip is not None:
            q, k, v = (heads.clamp(-self.clip, self.clip) for heads in (q, k, v))
        q, k = self.position.rotate(q, k, context)
        if self.norm_after:
            q, k = self._norm(self.q_norm, q), self._norm(self.k_norm, k)
        keys = context.queries
        if cache is not None:
            # Keys are rotated before they are kept: a kept key stands at its own position for ever.
            k, v = cache.append(k=k, v=v)
            keys = context.once(("keys", cache.capacity), lambda: cache.keys(x.shape[1]))
        if self.kept_as is not None:
            context.store[self.kept_as] = k, v, keys
        return q, k, v, keys

    def _read(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor, Span]:
        """Queries of its own, with the keys and values an earlier layer left."""
        k, v, keys = context.store[self.shared or ""]
        q = self.qkv(x).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
        if not self.norm_after:
            q = self._norm(self.q_norm, q)
        q = q if self.clip is None else q.clamp(-self.clip, self.clip)
        q, _ = self.position.rotate(q, q[:, :0], context)  # the keys were turned where they were made
        if self.norm_after:
            q = self._norm(self.q_norm, q)
        return q, k, v, keys

    def _sharpness(self, temperature: float, queries: Span) -> Tensor:
        """What each query is multiplied by, (B or 1, 1, T, 1) float32."""
        passed = (queries.positions + 1) // self.temperature_length
        return (1 + temperature * passed.float().log1p()).unsqueeze(1).unsqueeze(-1)

    def _norm(self, norm: Norm | None, heads: Tensor) -> Tensor:
        """Each head (B, H, T, Dh) by itself, or a token's heads side by side."""
        if norm is None:
            return heads
        if not self.norm_all:
            return norm(heads)
        wide = heads.transpose(1, 2)  # (B, T, H, Dh)
        return norm(wide.flatten(2)).view_as(wide).transpose(1, 2)


def _key(name: str) -> str:
    """Where keys and values lie in the context's store."""
    return f"kv {name}"


def _facts(config: GQAConfig, position: Part) -> dict[str, Any]:
    """What the layer that keeps keys and values and those that read them must agree on."""
    return {
        "n_kv_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "value_dim": config.value_dim,
        "position": position,
        "mask": config.mask,
    }


@hookimpl
def register_components(register: Register) -> None:
    register("gqa", GQA)
