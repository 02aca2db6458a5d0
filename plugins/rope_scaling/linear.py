"""Position interpolation: every frequency divided by the factor, as if positions were.

Chen et al. 2023, arXiv:2306.15595.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from lamina.core import ComponentConfig, FixedScaling, Register, hookimpl, rope_frequencies


class LinearConfig(ComponentConfig):
    factor: float = Field(ge=1, description="How many times longer texts become.")


class Linear(FixedScaling):
    """Squeezes the positions of a long text into the range that was trained."""

    Config = LinearConfig
    paper = "Chen et al. 2023, arXiv:2306.15595"

    def __init__(self, config: LinearConfig, theta: float, width: int) -> None:
        super().__init__([frequency / config.factor for frequency in rope_frequencies(theta, width)])

    @classmethod
    def examples(cls, directory: Path) -> list[dict[str, Any]]:
        return [{"factor": 2.0}]


@hookimpl
def register_components(register: Register) -> None:
    register("linear", Linear)
