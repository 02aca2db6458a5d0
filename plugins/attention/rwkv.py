"""RWKV-4's time mixing: y = out(σ(r) · wkv), a mean of past values with weights that fade.  arXiv:2305.13048.

With m(x) = μ · x_t + (1 - μ) · x_{t-1}, a mixture with the token before, learned for each of r, k and v:

    wkv_t = (Σ_{i<t} e^{k_i - (t-1-i) w} v_i + e^{u + k_t} v_t) / (Σ_{i<t} e^{k_i - (t-1-i) w} + e^{u + k_t})

`rwkv_channel_mix` is the ffn that goes with it.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from lamina.core import (
    Attention,
    ComponentConfig,
    Context,
    LayerState,
    Linear,
    OutLinear,
    Register,
    Span,
    hookimpl,
    token_shift,
)

Sums = tuple[Tensor, Tensor, Tensor]  # Σ e^{…} v and Σ e^{…}, both divided by e to the third


class RWKVConfig(ComponentConfig):
    width: int | None = Field(None, gt=0, description="Channels of keys and values. Default: dim.")

    def derive(self, dim: int) -> dict[str, Any]:
        return {"width": dim} if self.width is None else {}


class RWKV(Attention):
    """Attention without queries: what a token writes fades at a rate that each channel learns."""

    Config = RWKVConfig
    paper = "Peng et al. 2023, arXiv:2305.13048"

    def __init__(self, config: RWKVConfig, dim: int, layer: int, n_layers: int) -> None:
        super().__init__()
        assert config.width, "set by derive"
        self.layer, self.n_layers = layer, n_layers
        self.receptance_mix, self.key_mix, self.value_mix = (nn.Parameter(torch.empty(dim)) for _ in range(3))  # μ
        self.receptance = Linear(dim, config.width, bias=False)
        self.key = Linear(dim, config.width, bias=False)
        self.value = Linear(dim, config.width, bias=False)
        self.decay = nn.Parameter(torch.empty(config.width))  # log w
        self.bonus = nn.Parameter(torch.empty(config.width))  # u
        self.out = OutLinear(config.width, dim, bias=False)

    def init_weights(self, std: float) -> None:
        """Deeper layers look further back, and later channels further than earlier ones (the paper's appendix)."""
        width, device = self.decay.shape[0], self.decay.device
        depth = self.layer / max(1, self.n_layers - 1)  # 0 … 1
        dim = self.key_mix.shape[0]
        channel = torch.arange(dim, device=device, dtype=torch.float32) / dim
        shallow = 1 - self.layer / self.n_layers
        place = torch.arange(width, device=device, dtype=torch.float32) / max(1, width - 1)
        with torch.no_grad():
            self.receptance_mix.copy_(channel ** (0.5 * shallow))
            self.key_mix.copy_(channel**shallow)
            self.value_mix.copy_(channel**shallow + 0.3 * depth)
            self.decay.copy_(-5 + 8 * place ** (0.7 + 1.3 * depth))
            self.bonus.copy_(torch.log(torch.tensor(0.3)) + 0.5 * ((torch.arange(width, device=device) + 1) % 3 - 1))

    def make_state(self, batch: int, length: int, dtype: torch.dtype, device: torch.device) -> LayerState:
        width = (self.decay.shape[0],)
        return LayerState(
            batch,
            length,
            dtype,
            device,
            registers={"last": tuple(self.key_mix.shape), "sum": width, "weight": width, "log_scale": width},
            # Sums over the whole past would drown in bfloat16's rounding.
            register_dtype=torch.promote_types(dtype, torch.float32),
        )

    def forward(self, x: Tensor, context: Context, cache: LayerState | None = None) -> Tensor:
        before = token_shift(x, context.queries, cache.read("last") if cache is not None else None)
        mixes = (self.receptance_mix, self.key_mix, self.value_mix)
        r, k, v = (torch.lerp(before, x, mu.to(x.dtype)) for mu in mixes)  # (B, T, D) each
        r, k, v = torch.sigmoid(self.receptance(r)), self.key(k), self.value(v)  # (B, T, width) each
        past = (cache.read("sum"), cache.read("weight"), cache.read("log_scale")) if cache is not None else None
        wide = torch.promote_types(x.dtype, torch.float32)
        decay, bonus = self.decay.to(wide).exp(), self.bonus.to(wide)
        mean, sums = wkv(k.to(wide), v.to(wide), decay, bonus, context.queries, past)
        if cache is not None:
            cache.write("last", x[:, -1])
            for name, value in zip(("sum", "weight", "log_scale"), sums, strict=True):
                cache.write(name, value)
        out: Tensor = self.out(r * mean.to(x.dtype))
        return out


def wkv(
    k: Tensor, v: Tensor, decay: Tensor, bonus: Tensor, queries: Span, past: Sums | None = None
) -> tuple[Tensor, Sums]:
    """The weighted means (B, T, C) of v (B, T, C), and the sums (B, C) after the last token.

    In log2(T) passes: after each, an entry of the running sums covers twice as many tokens. Sums are kept divided by
    the exponential of their largest exponent, which no gradient needs to pass through: it cancels out.
    """
    first = (queries.positions == 0).unsqueeze(-1)  # (1 or B, T, 1)
    positions = queries.positions.unsqueeze(-1)
    if past is None:
        past = (torch.zeros_like(v[:, 0]), torch.zeros_like(v[:, 0]), torch.full_like(v[:, 0], -torch.inf))
    scale = torch.cat([past[2].to(k.dtype).unsqueeze(1), k], 1).detach()  # (B, 1 + T, C)
    own = torch.exp(k - k.detach())  # 1, and the way for k's gradient
    total = torch.cat([past[0].to(k.dtype).unsqueeze(1), own * v], 1)
    weight = torch.cat([past[1].to(k.dtype).unsqueeze(1), own], 1)
    positions = F.pad(positions, (0, 0, 1, 0))  # the past is an entry before the first token
    length, reach = scale.shape[1], 1
    while reach < length:
        # An entry takes in what ends `reach` tokens before it, if its document reaches back so far.
        earlier = F.pad(scale, (0, 0, reach, 0), value=-torch.inf)[:, :length] - reach * decay
        earlier = earlier.masked_fill(positions < reach, -torch.inf)
        joint = torch.maximum(scale, earlier).detach()
        joint = joint.masked_fill(joint == -torch.inf, 0.0)  # an empty past: 0 · e⁰, and not a difference of infinities
        kept, faded = torch.exp(scale - joint), torch.exp(earlier - joint)
        total = kept * total + faded * F.pad(total, (0, 0, reach, 0))[:, :length]
        weight = kept * weight + faded * F.pad(weight, (0, 0, reach, 0))[:, :length]
        scale, reach = joint, 2 * reach
    now = bonus + k
    before = scale[:, :-1].masked_fill(first, -torch.inf)
    joint = torch.maximum(before, now).detach()
    kept, added = torch.exp(before - joint), torch.exp(now - joint)
    mean = (kept * total[:, :-1] + added * v) / (kept * weight[:, :-1] + added)
    return mean, (total[:, -1], weight[:, -1], scale[:, -1])


@hookimpl
def register_components(register: Register) -> None:
    register("rwkv", RWKV)
