"""The feed-forward kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from torch import Tensor

from lamina.core.context import Context
from lamina.core.module import ModuleComponent


class FFN(ModuleComponent, ABC):
    """Mixes the channels of each token by itself. A mixture of experts is an FFN that owns a router and experts."""

    kind = "ffn"
    told = ("dim", "layer", "n_layers", "context_length", "vocab_size")
    keeps_shape = True

    @abstractmethod
    def forward(self, x: Tensor, context: Context) -> Tensor:
        """(..., D) -> (..., D)"""

    def active_parameters(self) -> int:
        """Parameters that take part in the work for one token."""
        return sum(parameter.numel() for parameter in self.parameters())

    if TYPE_CHECKING:
        __call__ = forward
