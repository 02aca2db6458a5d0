"""Hard swish: y = x · min(max(x + 3, 0), 6) / 6.  Howard et al. 2019, arXiv:1905.02244."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from lamina.core import Activation, Register, hookimpl


class HardSwish(Activation):
    """SiLU made of straight lines and a parabola."""

    paper = "Howard et al. 2019, arXiv:1905.02244"

    def forward(self, x: Tensor) -> Tensor:
        return F.hardswish(x)


@hookimpl
def register_components(register: Register) -> None:
    register("hardswish", HardSwish)
