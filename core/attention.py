"""The attention kind: any mixer of tokens along the sequence."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lamina.core.cache import LayerState
from lamina.core.context import Context
from lamina.core.mask import Mask
from lamina.core.module import ModuleComponent


class Attention(ModuleComponent, ABC):
    """Lets tokens read earlier tokens: grouped-query, latent, linear, state-space, convolution.

    `provides` says what it honours of its neighbours: "queries_keys" and "scores" (where a position may act), "mask"
    (a pattern other than plain causality). The invariant: any split of a sequence into cached calls gives the output of
    one full call.
    """

    kind = "attention"
    told = ("dim", "layer", "n_layers", "context_length", "position")
    keeps_shape = True

    @property
    def lookahead(self) -> float:
        """As `Mask.lookahead`, of the masks this attention holds."""
        held = (value for module in self.modules() for value in vars(module).values())
        return max((mask.lookahead for mask in held if isinstance(mask, Mask)), default=0)

    @classmethod
    def position_sizes(cls, config: Any) -> dict[str, int] | None:
        """The `head_dim` and `n_heads` a position is built at for this attention; None when it takes no position."""
        return None

    @abstractmethod
    def make_state(self, batch: int, length: int, dtype: torch.dtype, device: torch.device) -> LayerState:
        """Room for what this layer keeps of up to `length` tokens of `batch` sequences."""

    @abstractmethod
    def forward(self, x: Tensor, context: Context, cache: LayerState | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D)"""

    if TYPE_CHECKING:
        __call__ = forward
