"""Mish: y = x · tanh(log(1 + eˣ)).  Misra 2019, arXiv:1908.08681."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from lamina.core import Activation, Register, hookimpl


class Mish(Activation):
    """Smooth and not monotone, like SiLU, a little steeper."""

    paper = "Misra 2019, arXiv:1908.08681"

    def forward(self, x: Tensor) -> Tensor:
        return F.mish(x)


@hookimpl
def register_components(register: Register) -> None:
    register("mish", Mish)
