"""Leaky ReLU: y = max(x, 0) + slope · min(x, 0).  Maas et al. 2013, “Rectifier nonlinearities”."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from lamina.core import Activation, ComponentConfig, Register, hookimpl


class LeakyReLUConfig(ComponentConfig):
    slope: float = Field(0.01, ge=0, description="Multiplies what is negative.")


class LeakyReLU(Activation):
    """Passes what is positive, and a little of what is not."""

    Config = LeakyReLUConfig
    paper = "Maas et al. 2013, ICML"

    def __init__(self, config: LeakyReLUConfig) -> None:
        super().__init__()
        self.slope = config.slope

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x, self.slope)


@hookimpl
def register_components(register: Register) -> None:
    register("leaky_relu", LeakyReLU)
