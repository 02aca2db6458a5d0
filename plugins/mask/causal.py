"""The plain causal mask: a token sees itself and every token before it."""

from __future__ import annotations

import torch
from torch import Tensor

from lamina.core import ALWAYS_DENSE, Mask, Register, hookimpl


class Causal(Mask):
    """Allows everything; the core adds causality to every causal mask."""

    paper = "Vaswani et al. 2017, arXiv:1706.03762"

    @property
    def pattern(self) -> type[Causal]:
        return Causal

    @property
    def dense_up_to(self) -> float:
        return ALWAYS_DENSE

    @classmethod
    def requires(cls, config: object) -> dict[str, frozenset[str]]:
        return {}  # every attention is causal by itself

    def allowed(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
        return torch.ones_like(k_positions, dtype=torch.bool)  # (..., 1, S)


@hookimpl
def register_components(register: Register) -> None:
    register("causal", Causal)
