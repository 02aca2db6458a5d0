"""The feed-forward kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lamina.core.cache import LayerState
from lamina.core.context import Context
from lamina.core.module import ModuleComponent


class FFN(ModuleComponent, ABC):
    """Mixes the channels of each token by itself. A mixture of experts is an FFN that owns a router and experts.

    One that looks at earlier tokens too overrides `provides`, to offer no "tokenwise", and `make_state`; its `forward`
    takes a third argument, `cache: LayerState | None = None`, as an attention's does, and keeps the same invariant.
    """

    kind = "ffn"
    told = ("dim", "layer", "n_layers", "context_length", "vocab_size")
    keeps_shape = True

    @classmethod
    def provides(cls, config: Any) -> frozenset[str]:
        """ "tokenwise": the output at a token depends on that token alone, so it may be given any choice of tokens."""
        return frozenset({"tokenwise"})

    def make_state(self, batch: int, length: int, dtype: torch.dtype, device: torch.device) -> LayerState | None:
        """Room for what it keeps of up to `length` tokens of `batch` sequences; None when it keeps nothing."""
        return None

    @abstractmethod
    def forward(self, x: Tensor, context: Context) -> Tensor:
        """(..., D) -> (..., D); (B, T, D) -> (B, T, D) when it is not tokenwise"""

    def active_parameters(self) -> int:
        """Parameters that take part in the work for one token."""
        return sum(parameter.numel() for parameter in self.parameters())

    if TYPE_CHECKING:
        __call__ = forward
