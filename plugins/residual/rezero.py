"""ReZero: stream + α · f(stream), α learned from zero.  Bachlechner et al. 2020, arXiv:2003.04887."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lamina.core import Register, Residual, hookimpl


class ReZero(Residual):
    """A decoder that starts as the identity, however deep it is. The paper uses it without norms."""

    paper = "Bachlechner et al. 2020, arXiv:2003.04887"

    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(()))

    def forward(self, stream: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        return torch.addcmul(stream, sublayer(stream), self.alpha.to(stream.dtype))


@hookimpl
def register_components(register: Register) -> None:
    register("rezero", ReZero)
