"""Linear attention: softmax's exp(q·k) replaced by a product of features, so that the past is one sum of fixed size.

    y_t = S_tᵀ φ(q_t) / (z_t · φ(q_t) + eps),    S_t = Σ_{s≤t} φ(k_s) v_sᵀ,    z_t = Σ_{s≤t} φ(k_s)

Katharopoulos et al. 2020, arXiv:2006.16236, with φ(x) = elu(x) + 1. A position that turns queries and keys turns their
features, in the numerator alone, where a sign may change (Su et al. 2021, arXiv:2104.09864, section 3.3).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from lamina.core import (
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
    Position,
    Register,
    hookimpl,
    linear_scan,
    slot,
)

FEATURES: dict[str, Callable[[Tensor], Tensor]] = {
    "elu1": lambda x: F.elu(x) + 1,
    "relu": F.relu,
    "softmax": lambda x: x.softmax(-1),
    "identity": lambda x: x,
}


class LinearAttentionConfig(ComponentConfig):
    n_heads: int = Field(gt=0, le=65_536, description="Attention heads.")
    head_dim: int | None = Field(None, gt=0, le=65_536, description="Width of a head. Default: dim / n_heads.")
    bias: bool = Field(False, description="Biases on the projections.")
    feature_map: Literal["elu1", "relu", "softmax", "identity"] = Field(
        "elu1", description="φ: elu(x) + 1, relu(x), softmax over the channels of a head, or x itself."
    )
    normalise: bool = Field(True, description="Divide by z_t · φ(q_t), the sum of a query's weights.")
    eps: float = Field(1e-6, gt=0, description="Added to that sum.")
    norm: Part | None = slot("norm", None, description="Norm on each head's output; what holds it when not normalised.")

    def derive(self, dim: int) -> dict[str, Any]:
        if self.normalise and self.feature_map == "identity":
            raise ConfigProblem(
                "normalise",
                "with feature_map: identity weights have any sign and may sum to zero",
                "set normalise: false, and a norm",
            )
        if self.head_dim is None and dim % self.n_heads:
            raise ConfigProblem(
                "n_heads", f"dim ({dim}) must be a multiple of n_heads ({self.n_heads})", "change it, or give head_dim"
            )
        return {"head_dim": dim // self.n_heads} if self.head_dim is None else {}


class LinearAttention(Attention):
    """Reads a sum over the past in place of the past itself: cost and memory a token do not grow with the text."""

    Config = LinearAttentionConfig
    paper = "Katharopoulos et al. 2020, arXiv:2006.16236"

    def __init__(self, config: LinearAttentionConfig, dim: int, position: Position, norm: Norm | None = None) -> None:
        super().__init__()
        assert config.head_dim, "set by derive"
        self.n_heads, self.head_dim = config.n_heads, config.head_dim
        self.features = FEATURES[config.feature_map]
        self.normalise, self.eps = config.normalise, config.eps
        self.position, self.norm = position, norm
        width = self.n_heads * self.head_dim
        self.qkv = Linear(dim, 3 * width, bias=config.bias)  # rows: queries, keys, values
        self.out = OutLinear(width, dim, bias=config.bias)

    @classmethod
    def parts(cls, config: LinearAttentionConfig) -> Parts:
        return {"norm": config.norm.at(size=config.head_dim) if config.norm else None}

    @classmethod
    def provides(cls, config: LinearAttentionConfig) -> frozenset[str]:
        return frozenset({"queries_keys"})

    @classmethod
    def position_sizes(cls, config: LinearAttentionConfig) -> dict[str, int]:
        assert config.head_dim, "set by derive"
        return {"head_dim": config.head_dim, "n_heads": config.n_heads}

    def make_state(self, batch: int, length: int, dtype: torch.dtype, device: torch.device) -> LayerState:
        registers = {"sum": (self.n_heads, self.head_dim, self.head_dim)}
        if self.normalise:
            registers["weight"] = (self.n_heads, self.head_dim, 1)
        wide = torch.promote_types(dtype, torch.float32)
        return LayerState(batch, length, dtype, device, registers=registers, register_dtype=wide)

    def forward(self, x: Tensor, context: Context, cache: LayerState | None = None) -> Tensor:
        batch, length, _ = x.shape
        heads = self.qkv(x).view(batch, length, -1, self.head_dim).transpose(1, 2)  # (B, 3H, T, Dh)
        q, k, v = heads.chunk(3, 1)
        q, k = self.features(q), self.features(k)
        turned = self.position.rotate(q, k, context)

        def scan(name: str, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            y, state = linear_scan(q, k, v, None, context.queries, cache.read(name) if cache is not None else None)
            if cache is not None:
                cache.write(name, state)
            return y

        y = scan("sum", *turned, v)  # (B, H, T, Dh)
        if self.normalise:
            y = y / (scan("weight", q, k, v.new_ones(batch, self.n_heads, length, 1)) + self.eps)
        y = y.to(x.dtype)
        y = y if self.norm is None else self.norm(y)
        projected: Tensor = self.out(y.transpose(1, 2).reshape(batch, length, -1))
        return projected


@hookimpl
def register_components(register: Register) -> None:
    register("linear", LinearAttention)
