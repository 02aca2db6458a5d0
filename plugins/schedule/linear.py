"""Warm-up, then a straight line: 1 - (1 - min) · t, t from 0 at the peak to 1 at the last step.

Howard & Ruder 2018, arXiv:1801.06146; to zero for language models: Bergsma et al. 2025, arXiv:2502.15938.
"""

from __future__ import annotations

from pydantic import Field

from lamina.core import ComponentConfig, Register, Schedule, hookimpl, warm_up


class LinearConfig(ComponentConfig):
    warmup_steps: int = Field(0, ge=0, description="Steps over which the rate climbs to its highest value.")
    min_factor: float = Field(0.0, ge=0, le=1, description="The last step's rate as a fraction of the highest.")


class Linear(Schedule):
    """Full rate at the end of the warm-up, `min_factor` of it at the last step, even steps between."""

    Config = LinearConfig
    paper = "Howard & Ruder 2018, arXiv:1801.06146"

    def __init__(self, config: LinearConfig) -> None:
        self.config = config

    def factor(self, step: int, n_steps: int) -> float:
        peak = max(self.config.warmup_steps - 1, 0)
        if step <= peak:
            return warm_up(step, self.config.warmup_steps)
        done = (step - peak) / (n_steps - 1 - peak)
        return 1 - (1 - self.config.min_factor) * done


@hookimpl
def register_components(register: Register) -> None:
    register("linear", Linear)
