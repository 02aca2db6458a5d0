"""ELU: y = x where x > 0, alpha · (eˣ - 1) elsewhere.  Clevert et al. 2015, arXiv:1511.07289."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from lamina.core import Activation, ComponentConfig, Register, hookimpl


class ELUConfig(ComponentConfig):
    alpha: float = Field(1.0, gt=0, description="The output comes down to -alpha.")


class ELU(Activation):
    """The identity above zero, levelling off below it."""

    Config = ELUConfig
    paper = "Clevert et al. 2015, arXiv:1511.07289"

    def __init__(self, config: ELUConfig) -> None:
        super().__init__()
        self.alpha = config.alpha

    def forward(self, x: Tensor) -> Tensor:
        return F.elu(x, self.alpha)


@hookimpl
def register_components(register: Register) -> None:
    register("elu", ELU)
