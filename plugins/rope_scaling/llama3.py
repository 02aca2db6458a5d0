"""Llama 3.1's scaling: short waves stay, long ones turn `factor` times slower, those between are blended.

Grattafiori et al. 2024, arXiv:2407.21783. With n = original_context_length / wavelength, the turns of a pair in a text
of the training: n above high_freq_factor stays, n below low_freq_factor is divided by the factor, and between them the
share that stays grows in proportion to n. Where the two are one (Llama 4), nothing is blended.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from pydantic import Field

from lamina.core import ComponentConfig, ConfigProblem, FixedScaling, Register, hookimpl, rope_frequencies


class Llama3Config(ComponentConfig):
    original_context_length: int = Field(gt=0, description="Longest text of the training before the stretching.")
    factor: float = Field(8.0, ge=1, description="How many times slower the slow pairs turn.")
    low_freq_factor: float = Field(1.0, gt=0, description="Turns in a text up to which a pair is slowed.")
    high_freq_factor: float = Field(4.0, gt=0, description="Turns in a text from which on a pair stays as it is.")

    def derive(self) -> dict[str, Any]:
        if self.high_freq_factor < self.low_freq_factor:
            raise ConfigProblem(
                "high_freq_factor",
                f"high_freq_factor ({self.high_freq_factor:g}) must be at least "
                f"low_freq_factor ({self.low_freq_factor:g})",
            )
        return {}


class Llama3(FixedScaling):
    """Slows only long waves, by how often they turn in a text of the training."""

    Config = Llama3Config
    paper = "Grattafiori et al. 2024, arXiv:2407.21783"

    def __init__(self, config: Llama3Config, theta: float, width: int) -> None:
        low, high = config.low_freq_factor, config.high_freq_factor
        frequencies = []
        for frequency in rope_frequencies(theta, width):
            n_turns = config.original_context_length * frequency / (2 * math.pi)
            kept = min(max((n_turns - low) / (high - low), 0.0), 1.0) if high > low else float(n_turns >= low)
            frequencies.append(frequency * kept + frequency / config.factor * (1 - kept))
        super().__init__(frequencies)

    @classmethod
    def examples(cls, directory: Path) -> list[dict[str, Any]]:
        return [{"original_context_length": 16}]


@hookimpl
def register_components(register: Register) -> None:
    register("llama3", Llama3)
