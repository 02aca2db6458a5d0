"""Scaled residual: stream_factor · stream + factor · f(stream).

Granite and MiniCPM fix the factor (arXiv:2404.06395), MiniMax-01 both (arXiv:2501.08313).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor, nn

from lamina.core import ComponentConfig, Program, Register, Residual, Rows, hookimpl


class ScaledConfig(ComponentConfig):
    factor: float = Field(description="Multiplies the sublayer's output.")
    learned: bool = Field(False, description="Train the factor, one for each sublayer, from this start.")
    stream_factor: float = Field(1.0, description="Multiplies the stream the output joins.")


class Scaled(Residual):
    """Weighs what each sublayer adds."""

    Config = ScaledConfig
    paper = "Hu et al. 2024, arXiv:2404.06395"

    def __init__(self, config: ScaledConfig) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(config.factor)) if config.learned else config.factor
        self.stream_factor = config.stream_factor

    def forward(self, stream: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        out = sublayer(stream)
        if self.stream_factor != 1.0:
            stream = stream * self.stream_factor
        if isinstance(self.factor, Tensor):
            return torch.addcmul(stream, out, self.factor.to(stream.dtype))
        return torch.add(stream, out, alpha=self.factor)

    def lower(self, program: Program, stream: Rows, sublayer: Callable[[Rows], Rows]) -> None:
        program.add(stream, sublayer(stream), keep=self.stream_factor, scale=float(self.factor))


@hookimpl
def register_components(register: Register) -> None:
    register("scaled", Scaled)
