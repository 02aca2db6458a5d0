"""ReLU: y = max(x, 0).  Nair & Hinton 2010, “Rectified linear units improve restricted Boltzmann machines”."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from lamina.core import Activation, Register, hookimpl


class ReLU(Activation):
    """Passes what is positive and nothing else."""

    paper = "Nair & Hinton 2010, ICML"

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x)

    def lower(self) -> str:
        return "relu"


@hookimpl
def register_components(register: Register) -> None:
    register("relu", ReLU)
