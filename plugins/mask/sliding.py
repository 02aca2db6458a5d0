"""Sliding window: a token sees the last `window` tokens, itself among them.  Beltagy et al. 2020, arXiv:2004.05150."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from lamina.core import ComponentConfig, Mask, Register, hookimpl


class SlidingConfig(ComponentConfig):
    window: int = Field(gt=0, description="Keys a token sees, itself among them.")


class Sliding(Mask):
    """q - k < window."""

    Config = SlidingConfig
    paper = "Beltagy et al. 2020, arXiv:2004.05150"

    def __init__(self, config: SlidingConfig) -> None:
        self.window = config.window

    @property
    def pattern(self) -> tuple[object, ...]:
        return Sliding, self.window

    @property
    def reach(self) -> int:
        return self.window

    @property
    def fills_reach(self) -> bool:
        return True

    @property
    def dense_up_to(self) -> float:
        return self.window

    def allowed(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
        return q_positions - k_positions < self.window


@hookimpl
def register_components(register: Register) -> None:
    register("sliding", Sliding)
