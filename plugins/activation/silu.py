"""SiLU, also called Swish: y = x · sigmoid(x).  Elfwing et al. 2017, arXiv:1702.03118."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from lamina.core import Activation, Register, hookimpl


class SiLU(Activation):
    """Weighs each number by its own sigmoid."""

    paper = "Elfwing et al. 2017, arXiv:1702.03118"

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x)

    def lower(self) -> str:
        return "silu"


@hookimpl
def register_components(register: Register) -> None:
    register("silu", SiLU)
