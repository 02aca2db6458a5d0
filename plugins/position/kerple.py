"""KERPLE: scores - a · ln(1 + b · d), or scores - a · d^p, for the distance d; a and b or p learned by each head.

Chi et al. 2022, arXiv:2205.09921. Kernels that fall with the distance, so that texts longer than those of the training
can be read; a and b are positive, p lies between 0 and 2.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from lamina.core import ComponentConfig, Position, Register, Span, hookimpl

LEAST = 0.01  # of a positive parameter


class KERPLEConfig(ComponentConfig):
    variant: Literal["log", "power"] = Field("log", description="log: a · ln(1 + b · d). power: a · d^p.")
    shared: bool = Field(False, description="One set of parameters for all layers, or one for each.")


class KERPLE(Position):
    """A learned penalty for distance, between ALiBi's straight line and none at all."""

    Config = KERPLEConfig
    paper = "Chi et al. 2022, arXiv:2205.09921"

    def __init__(self, config: KERPLEConfig, n_heads: int) -> None:
        super().__init__()
        self.logarithmic = config.variant == "log"
        self.most = math.inf if self.logarithmic else 2.0  # that b or p may be
        self.a = nn.Parameter(torch.rand(n_heads).clamp(min=LEAST))
        self.bend = nn.Parameter((2 * torch.rand(n_heads)).clamp(min=LEAST))  # b or p

    @classmethod
    def shared(cls, config: KERPLEConfig) -> bool:
        return config.shared

    def after_step(self) -> None:
        # A parameter left outside its range would get no gradient to come back by.
        with torch.no_grad():
            self.a.clamp_(min=LEAST)
            self.bend.clamp_(LEAST, self.most)

    def bias(self, q: Tensor, queries: Span, keys: Span) -> Tensor:
        return queries.once_with(keys, self, lambda: self._penalties(queries, keys))

    def _penalties(self, queries: Span, keys: Span) -> Tensor:
        wide = torch.promote_types(self.a.dtype, torch.float32)
        distance = (queries.positions.unsqueeze(-1) - keys.positions.unsqueeze(-2)).abs().unsqueeze(1).to(wide)
        a = self.a.to(wide).clamp(min=LEAST).view(-1, 1, 1)  # (H, 1, 1)
        bend = self.bend.to(wide).clamp(LEAST, self.most).view(-1, 1, 1)
        return -a * (torch.log1p(bend * distance) if self.logarithmic else distance**bend)  # (1 or B, H, T, S)


@hookimpl
def register_components(register: Register) -> None:
    register("kerple", KERPLE)
