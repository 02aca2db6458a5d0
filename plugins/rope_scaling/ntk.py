"""NTK-aware scaling: a larger theta, theta · factor^(d / (d - 2)) for d turned channels.

Described in Peng et al. 2023, arXiv:2309.00071. The slowest pair turns `factor` times slower and the fastest as fast as
before.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from lamina.core import ComponentConfig, ConfigProblem, FixedScaling, Register, hookimpl, rope_frequencies


class NTKConfig(ComponentConfig):
    factor: float = Field(ge=1, description="How many times slower the slowest pair turns (Hunyuan calls it alpha).")

    def derive(self, width: int) -> dict[str, Any]:
        if width < 4:
            raise ConfigProblem("factor", f"only {width} channels are turned, and two pairs are the least to scale")
        return {}


class NTK(FixedScaling):
    """Spreads the stretching over the pairs, none for the fastest."""

    Config = NTKConfig
    paper = "Peng et al. 2023, arXiv:2309.00071"

    def __init__(self, config: NTKConfig, theta: float, width: int) -> None:
        super().__init__(rope_frequencies(theta * config.factor ** (width / (width - 2)), width))

    @classmethod
    def examples(cls, directory: Path) -> list[dict[str, Any]]:
        return [{"factor": 2.0}]


@hookimpl
def register_components(register: Register) -> None:
    register("ntk", NTK)
