"""Warm-up, then the inverse square root of the step: min((step + 1) / w, √(w / (step + 1))), w = warmup_steps.

Vaswani et al. 2017, arXiv:1706.03762, as a share of the highest rate.
"""

from __future__ import annotations

import math

from pydantic import Field

from lamina.core import ComponentConfig, Register, Schedule, hookimpl, warm_up


class InverseSqrtConfig(ComponentConfig):
    warmup_steps: int = Field(
        100, ge=1, description="Steps over which the rate climbs to its highest value; also how slowly it falls after."
    )


class InverseSqrt(Schedule):
    """Depends on no last step, so a run may be prolonged at will."""

    Config = InverseSqrtConfig
    paper = "Vaswani et al. 2017, arXiv:1706.03762"

    def __init__(self, config: InverseSqrtConfig) -> None:
        self.config = config

    def factor(self, step: int, n_steps: int) -> float:
        warmup_steps = self.config.warmup_steps
        return min(warm_up(step, warmup_steps), math.sqrt(warmup_steps / (step + 1)))


@hookimpl
def register_components(register: Register) -> None:
    register("inverse_sqrt", InverseSqrt)
