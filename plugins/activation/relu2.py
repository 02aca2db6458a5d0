"""Squared ReLU: y = max(x, 0)².  So et al. 2021, arXiv:2109.08668."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from lamina.core import Activation, Register, hookimpl


class SquaredReLU(Activation):
    """ReLU with a slope that grows from zero."""

    paper = "So et al. 2021, arXiv:2109.08668"

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x).square()

    def lower(self) -> str:
        return "relu2"


@hookimpl
def register_components(register: Register) -> None:
    register("relu2", SquaredReLU)
