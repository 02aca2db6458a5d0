"""Hyperbolic tangent: y = (eˣ - e⁻ˣ) / (eˣ + e⁻ˣ).  LeCun et al. 1998, “Efficient BackProp”."""

from __future__ import annotations

import torch
from torch import Tensor

from lamina.core import Activation, Register, hookimpl


class Tanh(Activation):
    """Between -1 and 1."""

    paper = "LeCun et al. 1998, Efficient BackProp"

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x)


@hookimpl
def register_components(register: Register) -> None:
    register("tanh", Tanh)
