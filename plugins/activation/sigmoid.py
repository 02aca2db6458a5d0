"""Sigmoid: y = 1 / (1 + e⁻ˣ). In a gated ffn it makes the original GLU (Dauphin et al. 2016, arXiv:1612.08083)."""

from __future__ import annotations

import torch
from torch import Tensor

from lamina.core import Activation, Register, hookimpl


class Sigmoid(Activation):
    """Between 0 and 1."""

    paper = "Dauphin et al. 2016, arXiv:1612.08083"
    zero_at_zero = False

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x)

    def lower(self) -> str:
        return "sigmoid"


@hookimpl
def register_components(register: Register) -> None:
    register("sigmoid", Sigmoid)
