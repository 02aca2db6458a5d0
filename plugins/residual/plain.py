"""The plain residual connection: stream + f(stream).  He et al. 2015, arXiv:1512.03385."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from lamina.core import ComponentConfig, Program, Register, Residual, Rows, hookimpl


class PlainConfig(ComponentConfig):
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of the sublayer's output set to zero while training.")


class Plain(Residual):
    """Adds what the sublayer found to what it read."""

    Config = PlainConfig
    paper = "He et al. 2015, arXiv:1512.03385"

    def __init__(self, config: PlainConfig) -> None:
        super().__init__()
        self.dropout = config.dropout

    def forward(self, stream: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        out = sublayer(stream)
        if self.dropout and self.training:
            out = F.dropout(out, self.dropout)
        return stream + out

    def lower(self, program: Program, stream: Rows, sublayer: Callable[[Rows], Rows]) -> None:
        program.add(stream, sublayer(stream))


@hookimpl
def register_components(register: Register) -> None:
    register("plain", Plain)
