"""GELU: y = x · Φ(x) with Φ the normal distribution function.  Hendrycks & Gimpel 2016, arXiv:1606.08415."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from lamina.core import Activation, Register, hookimpl


class GELU(Activation):
    """Weighs each number by how likely a normal variable is to lie below it."""

    paper = "Hendrycks & Gimpel 2016, arXiv:1606.08415"

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x)

    def lower(self) -> str:
        return "gelu"


@hookimpl
def register_components(register: Register) -> None:
    register("gelu", GELU)
