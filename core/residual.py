"""The residual kind: how a sublayer's output joins the stream it read from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor

from lamina.core.module import ModuleComponent


class Residual(ModuleComponent, ABC):
    """Runs a sublayer on the stream and joins the result to it. One instance per sublayer.

    `sublayer` maps (B, T, D) to (B, T, D), its norms included. A scheme with several streams keeps them in a tensor of
    its own shape between `widen`, called once after the embedding, and `narrow`, called once before the final norm.
    """

    kind = "residual"
    told = ("dim", "layer", "n_layers")

    @abstractmethod
    def forward(self, stream: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        """stream -> stream"""

    def widen(self, x: Tensor) -> Tensor:
        """(B, T, D) -> stream"""
        return x

    def narrow(self, stream: Tensor) -> Tensor:
        """stream -> (B, T, D)"""
        return stream

    if TYPE_CHECKING:
        __call__ = forward
