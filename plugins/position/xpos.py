"""xPos: rotary positions whose pairs fade with distance: the product of pair i, times zeta_i^((n - m) / scale_base).

Sun et al. 2022, arXiv:2212.10554, with zeta_i = (2i/d + gamma) / (1 + gamma) for a query at n and a key at m. Fast
pairs fade soonest. Written as zeta^(n / base) on queries and zeta^(-m / base) on keys, the second has no bound; so
each call counts n and m from a place among its own queries, which cancels, and keys are kept turned but not scaled.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor

from lamina.core import DeviceConstant, GenerationError, Register, RopeScaling, Rotary, RotaryConfig, Span, hookimpl


class XPosConfig(RotaryConfig):
    scale_base: float = Field(512.0, gt=0, description="Distance over which pair i fades by zeta_i; larger is gentler.")
    gamma: float = Field(0.4, gt=0, description="Evens out the fading: larger is gentler for the fast pairs.")


class XPos(Rotary):
    """Turns queries and keys, and lets near tokens speak louder than far ones."""

    Config = XPosConfig
    paper = "Sun et al. 2022, arXiv:2212.10554"

    def __init__(self, config: XPosConfig, head_dim: int, scaling: RopeScaling | None = None) -> None:
        super().__init__(config, head_dim, scaling)
        rates = [
            math.log((1 + config.gamma) / (i / self.width + config.gamma)) / config.scale_base
            for i in range(0, self.width, 2)
        ]
        self.fastest = rates[0]
        self.rates = DeviceConstant(rates)  # by how much the logarithm of a pair's product falls a token

    def meet(self, q: Tensor, k: Tensor, queries: Span, keys: Span) -> tuple[Tensor, Tensor]:
        most = math.log(torch.finfo(q.dtype).max) / 2  # the largest logarithm a factor may have
        longest = int(2 * most / self.fastest)
        if queries.length > longest:
            raise GenerationError(
                f"xpos fades too fast for {queries.length} tokens in one call; {longest} are the most",
                hint="give it a larger scale_base, or read the text in shorter cached calls",
            )
        fade, grow = queries.once_with(keys, self, lambda: self._factors(queries, keys, most))
        return self._scale(q, fade), self._scale(k, grow)

    def _factors(self, queries: Span, keys: Span, most: float) -> tuple[Tensor, Tensor]:
        """Of queries (1 or B, 1, T, width) and of keys (1 or B, 1, S, width)"""
        rates = self.rates.on(queries.positions.device)
        if queries.documents is None or keys.documents is None:
            q_origin = k_origin = queries.positions[:, :1]
        else:  # each document counts from the first of its own queries
            documents = queries.documents.contiguous()
            firsts = torch.searchsorted(documents, documents)
            q_origin = queries.positions.gather(-1, firsts)
            firsts = torch.searchsorted(documents, keys.documents.contiguous()).clamp(max=queries.length - 1)
            k_origin = queries.positions.gather(-1, firsts)
        middle = queries.length // 2
        since = (queries.positions - q_origin - middle).unsqueeze(-1)  # (1 or B, T, 1)
        before = (k_origin + middle - keys.positions).unsqueeze(-1)  # (1 or B, S, 1)
        fade = (-rates * since).exp().unsqueeze(1)
        # Hidden keys, later ones or those of other documents, may stand anywhere, and must not become infinite.
        grow = (-rates * before).clamp(max=most).exp().unsqueeze(1)
        return self.join(fade, fade), self.join(grow, grow)

    def _scale(self, x: Tensor, factors: Tensor) -> Tensor:
        scaled = (x[..., : self.width] * factors).to(x.dtype)
        return torch.cat([scaled, x[..., self.width :]], -1) if self.partial else scaled


@hookimpl
def register_components(register: Register) -> None:
    register("xpos", XPos)
