"""RWKV-4's channel mixing: y = σ(receptance(m(x))) · down(max(up(m'(x)), 0)²).  arXiv:2305.13048.

m(x) = μ · x_t + (1 - μ) · x_{t-1} is a mixture with the token before, learned for each of the two.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from lamina.core import (
    FFN,
    ComponentConfig,
    Context,
    LayerState,
    Linear,
    OutLinear,
    Register,
    hookimpl,
    token_shift,
)


class RWKVChannelMixConfig(ComponentConfig):
    hidden_dim: int | None = Field(None, gt=0, description="Inner width; 4 · dim when left out.")

    def derive(self, dim: int) -> dict[str, Any]:
        return {"hidden_dim": 4 * dim} if self.hidden_dim is None else {}


class RWKVChannelMix(FFN):
    """A squared-ReLU ffn with a gate on its output, that sees the token before too."""

    Config = RWKVChannelMixConfig
    paper = "Peng et al. 2023, arXiv:2305.13048"

    def __init__(self, config: RWKVChannelMixConfig, dim: int, layer: int, n_layers: int) -> None:
        super().__init__()
        assert config.hidden_dim is not None  # derived
        self.layer, self.n_layers = layer, n_layers
        self.receptance_mix, self.key_mix = (nn.Parameter(torch.empty(dim)) for _ in range(2))  # μ
        self.receptance = Linear(dim, dim, bias=False)
        self.up = Linear(dim, config.hidden_dim, bias=False)
        self.down = OutLinear(config.hidden_dim, dim, bias=False)

    def init_weights(self, std: float) -> None:
        dim = self.key_mix.shape[0]
        channel = torch.arange(dim, device=self.key_mix.device, dtype=torch.float32) / dim
        with torch.no_grad():
            for mix in (self.receptance_mix, self.key_mix):
                mix.copy_(channel ** (1 - self.layer / self.n_layers))

    @classmethod
    def provides(cls, config: RWKVChannelMixConfig) -> frozenset[str]:
        return frozenset()  # not tokenwise

    def make_state(self, batch: int, length: int, dtype: torch.dtype, device: torch.device) -> LayerState:
        return LayerState(batch, length, dtype, device, registers={"last": tuple(self.key_mix.shape)})

    def forward(self, x: Tensor, context: Context, cache: LayerState | None = None) -> Tensor:
        before = token_shift(x, context.queries, cache.read("last") if cache is not None else None)
        r, k = (torch.lerp(before, x, mu.to(x.dtype)) for mu in (self.receptance_mix, self.key_mix))  # (B, T, D) each
        if cache is not None:
            cache.write("last", x[:, -1])
        out: Tensor = torch.sigmoid(self.receptance(r)) * self.down(F.relu(self.up(k)).square())
        return out


@hookimpl
def register_components(register: Register) -> None:
    register("rwkv_channel_mix", RWKVChannelMix)
