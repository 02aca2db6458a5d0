"""Proportional rope: the first share of the pairs turns at the frequencies of the whole head, the rest not at all.

Gemma 4. Unlike rope's own `fraction`, which makes a small head of the front channels, this keeps the pairs and
frequencies of the whole head: pair i turns at theta^(-2i/width) / factor while it belongs to the share.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from lamina.core import ComponentConfig, ConfigProblem, FixedScaling, Register, hookimpl, rope_frequencies


class ProportionalConfig(ComponentConfig):
    fraction: float = Field(1.0, gt=0, le=1, description="Share of the pairs, fastest first, that turns.")
    factor: float = Field(1.0, ge=1, description="How many times longer texts become.")

    def derive(self, width: int) -> dict[str, Any]:
        if self.turned(width) == 0:
            raise ConfigProblem("fraction", f"{self.fraction:g} of {width // 2} pairs is less than one pair")
        return {}

    def turned(self, width: int) -> int:
        """Pairs that turn."""
        return int(self.fraction * width / 2 + 1e-6)


class Proportional(FixedScaling):
    """Leaves the slow pairs of a head without position."""

    Config = ProportionalConfig
    paper = "Gemma 4, as in transformers' modeling_rope_utils"

    def __init__(self, config: ProportionalConfig, theta: float, width: int) -> None:
        turned = config.turned(width)
        frequencies = [frequency / config.factor for frequency in rope_frequencies(theta, width)[:turned]]
        super().__init__(frequencies + [0.0] * (width // 2 - turned))


@hookimpl
def register_components(register: Register) -> None:
    register("proportional", Proportional)
