"""Warm-up, stable, decay: the full rate, then over the last steps min + (1 - min) · f(t), t from 0 to 1.

f(t) = 1 - t (linear), (1 + cos πt) / 2 (cosine), 1 - √t (sqrt).  Hu et al. 2024 (MiniCPM), arXiv:2404.06395; shapes
compared: Hägele et al. 2024, arXiv:2405.18392.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from pydantic import Field

from lamina.core import ComponentConfig, ConfigProblem, Register, Schedule, hookimpl, warm_up

DECAY_FRACTION = 0.2
SHAPES: dict[str, Callable[[float], float]] = {
    "linear": lambda t: 1 - t,
    "cosine": lambda t: (1 + math.cos(math.pi * t)) / 2,
    "sqrt": lambda t: 1 - math.sqrt(t),
}


class WSDConfig(ComponentConfig):
    warmup_steps: int = Field(0, ge=0, description="Steps over which the rate climbs to its highest value.")
    decay_fraction: float | None = Field(
        None, gt=0, le=1, description="Share of the run's steps over which it falls; 0.2 when neither this nor "
        "decay_steps is given. At most what the warm-up leaves.",
    )  # fmt: skip
    decay_steps: int | None = Field(
        None,
        ge=1,
        description="Steps over which it falls, in place of decay_fraction. At most what the warm-up leaves.",
    )
    shape: Literal["linear", "cosine", "sqrt"] = Field("linear", description="How it falls.")
    min_factor: float = Field(0.0, ge=0, le=1, description="The last step's rate as a fraction of the highest.")

    def derive(self) -> dict[str, object]:
        if self.decay_fraction is not None and self.decay_steps is not None:
            raise ConfigProblem(
                "decay_steps", "decay_fraction and decay_steps both say how long the decay is", "leave one of them out"
            )
        return {"decay_fraction": DECAY_FRACTION} if self.decay_fraction is self.decay_steps is None else {}


class WSD(Schedule):
    """Full rate for most of the run, so that one run serves several lengths: only the decay is taken anew."""

    Config = WSDConfig
    paper = "Hu et al. 2024, arXiv:2404.06395"

    def __init__(self, config: WSDConfig) -> None:
        self.config = config

    def factor(self, step: int, n_steps: int) -> float:
        config = self.config
        peak = max(config.warmup_steps - 1, 0)
        if step <= peak:
            return warm_up(step, config.warmup_steps)
        wanted = config.decay_steps
        if wanted is None:
            wanted = round((config.decay_fraction or DECAY_FRACTION) * n_steps)
        decay = min(max(wanted, 1), n_steps - 1 - peak)
        done = max(0, step - (n_steps - 1 - decay)) / decay  # 1 at the last step
        return config.min_factor + (1 - config.min_factor) * SHAPES[config.shape](done)


@hookimpl
def register_components(register: Register) -> None:
    register("wsd", WSD)
