"""The residual kind: how a sublayer's output joins the stream it read from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lamina.core.module import ModuleComponent


class Residual(ModuleComponent, ABC):
    """Runs a sublayer on the stream and joins the result to it. One instance per sublayer.

    `sublayer` maps (B, T, D) to (B, T, D), its norms included. A scheme with several streams keeps them in a tensor of
    its own shape between `widen`, called once after the embedding, and `narrow`, called once before the final norm.
    """

    kind = "residual"
    told = ("dim", "layer", "n_layers")

    @classmethod
    def stream(cls, config: Any) -> Hashable:
        """What tells its stream from a (B, T, D): the number of streams, say. All residuals of a decoder must agree."""
        return None

    @property
    def gain(self) -> float:
        """Multiplies the initial weights of the sublayer's `carriers`, for schemes whose depth needs small ones."""
        return 1.0

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
