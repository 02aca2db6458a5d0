"""Warm-up, then the full rate to the end: min(1, (step + 1) / warmup_steps)."""

from __future__ import annotations

from pydantic import Field

from lamina.core import ComponentConfig, Register, Schedule, hookimpl, warm_up


class ConstantConfig(ComponentConfig):
    warmup_steps: int = Field(0, ge=0, description="Steps over which the rate climbs to its highest value.")


class Constant(Schedule):
    """No decay, so a run may be prolonged at will."""

    Config = ConstantConfig
    paper = "linear warm-up: Goyal et al. 2017, arXiv:1706.02677"

    def __init__(self, config: ConstantConfig) -> None:
        self.config = config

    def factor(self, step: int, n_steps: int) -> float:
        return warm_up(step, self.config.warmup_steps)


@hookimpl
def register_components(register: Register) -> None:
    register("constant", Constant)
