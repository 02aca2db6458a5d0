"""Warm-up, then half a cosine: min + (1 - min) · (1 + cos(π · t)) / 2, t from 0 at the peak to 1 at the last step.

Loshchilov & Hutter 2016, arXiv:1608.03983, one cycle; linear warm-up: Goyal et al. 2017, arXiv:1706.02677.
"""

from __future__ import annotations

import math

from pydantic import Field

from lamina.core import ComponentConfig, Register, Schedule, hookimpl, warm_up


class CosineConfig(ComponentConfig):
    warmup_steps: int = Field(0, ge=0, description="Steps over which the rate climbs to its highest value.")
    min_factor: float = Field(0.1, ge=0, le=1, description="The last step's rate as a fraction of the highest.")


class Cosine(Schedule):
    """Full rate at the end of the warm-up, `min_factor` of it at the last step."""

    Config = CosineConfig
    paper = "Loshchilov & Hutter 2016, arXiv:1608.03983"

    def __init__(self, config: CosineConfig) -> None:
        self.config = config

    def factor(self, step: int, n_steps: int) -> float:
        peak = max(self.config.warmup_steps - 1, 0)
        if step <= peak:
            return warm_up(step, self.config.warmup_steps)
        done = (step - peak) / (n_steps - 1 - peak)
        return self.config.min_factor + (1 - self.config.min_factor) * (1 + math.cos(math.pi * done)) / 2


@hookimpl
def register_components(register: Register) -> None:
    register("cosine", Cosine)
