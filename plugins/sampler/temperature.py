"""Temperature: logits / T.  Above 1 flattens the distribution, below 1 sharpens it.  Ackley et al. 1985."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator
from torch import Tensor

from lamina.core import ComponentConfig, History, Register, Sampler, hookimpl


class TemperatureConfig(ComponentConfig):
    # The bounds keep logits / T a float32: beyond them it overflows, or turns a removed token's -inf into NaN.
    value: float = Field(
        0.8, ge=1e-6, le=1e6, description="Logits are divided by this; near 0 the most likely token wins."
    )

    @field_validator("value", mode="before")
    @classmethod
    def _not_zero(cls, value: Any) -> Any:
        if value == 0 and not isinstance(value, bool):
            raise ValueError("must be above 0; for the most likely token every time use the sampler 'greedy' instead")
        return value


class Temperature(Sampler):
    """Sharpen or flatten the distribution, keeping every token and their order."""

    Config = TemperatureConfig
    paper = "Ackley, Hinton & Sejnowski 1985, A learning algorithm for Boltzmann machines"
    removes_none = keeps_best = forgetful = True

    def __init__(self, config: TemperatureConfig) -> None:
        self.value = config.value

    def forward(self, logits: Tensor, history: History) -> Tensor:
        return logits / self.value


@hookimpl
def register_components(register: Register) -> None:
    register("temperature", Temperature)
