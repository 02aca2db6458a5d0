"""Dilated window: the token itself and every `dilation`-th key before it, `window` keys in all.

Longformer (Beltagy et al. 2020, arXiv:2004.05150): q - k is a multiple of `dilation` below window · dilation.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from lamina.core import ComponentConfig, Mask, Register, hookimpl


class DilatedConfig(ComponentConfig):
    window: int = Field(gt=0, description="Keys a token sees, itself among them.")
    dilation: int = Field(gt=0, description="Distance from one of these keys to the next; 1 is a sliding window.")


class Dilated(Mask):
    """(q - k) mod dilation = 0 and q - k < window · dilation."""

    Config = DilatedConfig
    paper = "Beltagy et al. 2020, arXiv:2004.05150"

    def __init__(self, config: DilatedConfig) -> None:
        self.window, self.dilation = config.window, config.dilation

    @property
    def pattern(self) -> tuple[object, ...]:
        return Dilated, self.window, self.dilation

    @property
    def reach(self) -> int:
        return (self.window - 1) * self.dilation + 1

    @property
    def fills_reach(self) -> bool:
        return self.reach == self.window

    @property
    def dense_up_to(self) -> float:
        return self.window if self.fills_reach else 1

    def allowed(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
        distance = q_positions - k_positions
        return (distance % self.dilation == 0) & (distance < self.window * self.dilation)


@hookimpl
def register_components(register: Register) -> None:
    register("dilated", Dilated)
