"""Quick GELU: y = x · σ(1.702 x).  Hendrycks & Gimpel 2016, arXiv:1606.08415, section 2."""

from __future__ import annotations

import torch
from torch import Tensor

from lamina.core import Activation, Register, hookimpl


class QuickGELU(Activation):
    """GELU with a sigmoid in the place of the normal distribution."""

    paper = "Hendrycks & Gimpel 2016, arXiv:1606.08415"

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)

    def lower(self) -> str:
        return "quick_gelu"


@hookimpl
def register_components(register: Register) -> None:
    register("quick_gelu", QuickGELU)
