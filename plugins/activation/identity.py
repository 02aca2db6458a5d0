"""The identity: y = x. In a gated ffn it makes the bilinear layer (Shazeer 2020, arXiv:2002.05202)."""

from __future__ import annotations

from torch import Tensor

from lamina.core import Activation, Register, hookimpl


class Identity(Activation):
    """Leaves its input as it is."""

    paper = "Shazeer 2020, arXiv:2002.05202"

    def forward(self, x: Tensor) -> Tensor:
        return x

    def lower(self) -> str:
        return "identity"


@hookimpl
def register_components(register: Register) -> None:
    register("identity", Identity)
