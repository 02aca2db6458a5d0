"""Softplus: y = log(1 + e^(beta · x)) / beta.  Dugas et al. 2000, “Incorporating second-order functional knowledge”."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from lamina.core import Activation, ComponentConfig, Register, hookimpl


class SoftplusConfig(ComponentConfig):
    beta: float = Field(1.0, gt=0, description="Sharpness of the bend; a large one comes close to ReLU.")


class Softplus(Activation):
    """A smooth ReLU that is positive everywhere."""

    Config = SoftplusConfig
    paper = "Dugas et al. 2000, NeurIPS"
    zero_at_zero = False

    def __init__(self, config: SoftplusConfig) -> None:
        super().__init__()
        self.beta = config.beta

    def forward(self, x: Tensor) -> Tensor:
        return F.softplus(x, self.beta)


@hookimpl
def register_components(register: Register) -> None:
    register("softplus", Softplus)
