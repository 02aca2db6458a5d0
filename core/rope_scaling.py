"""The rope_scaling kind: how rotary positions are changed to serve texts longer than those of the training."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from lamina.core.component import Component
from lamina.core.context import Span
from lamina.core.module import DeviceConstant


class RopeScaling(Component, ABC):
    """Says how far each pair of channels turns from one token to the next, and how large turned channels become.

    What it says of a token may depend on where the token stands and on how long its text is
    (`queries.text_lengths`), and on nothing else.
    """

    kind = "rope_scaling"
    told = ("theta", "width", "dim", "head_dim", "n_heads", "context_length")

    @abstractmethod
    def turns(self, queries: Span) -> tuple[Tensor, Tensor | float]:
        """Radians a token for each pair, float32, and what turned channels are multiplied by.

        (width/2,) or (1 or B, 1 or T, width/2); a number or (1 or B, 1 or T, 1)
        """


class FixedScaling(RopeScaling):
    """One set of frequencies for all texts."""

    def __init__(self, frequencies: list[float], attention_factor: float = 1.0) -> None:
        self.frequencies, self.attention_factor = DeviceConstant(frequencies), attention_factor

    def turns(self, queries: Span) -> tuple[Tensor, float]:
        return self.frequencies.on(queries.positions.device), self.attention_factor


def rope_frequencies(theta: float, width: int) -> list[float]:
    """The rotary frequencies as they were trained: theta^(-2i/width) for the pairs i of `width` channels."""
    return [theta ** (-i / width) for i in range(0, width, 2)]
