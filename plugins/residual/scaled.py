"""Scaled residual: stream + factor · f(stream).

Granite and MiniCPM fix the factor (arXiv:2404.06395); ReZero learns it, from zero (Bachlechner et al. 2020,
arXiv:2003.04887).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor, nn

from lamina.core import ComponentConfig, Register, Residual, hookimpl


class ScaledConfig(ComponentConfig):
    factor: float = Field(description="Multiplies the sublayer's output.")
    learned: bool = Field(False, description="Train the factor, one for each sublayer, from this start.")


class Scaled(Residual):
    """Weighs what each sublayer adds."""

    Config = ScaledConfig
    paper = "Hu et al. 2024, arXiv:2404.06395; Bachlechner et al. 2020, arXiv:2003.04887"

    def __init__(self, config: ScaledConfig) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(config.factor)) if config.learned else config.factor

    def forward(self, stream: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        out = sublayer(stream)
        if isinstance(self.factor, Tensor):
            return torch.addcmul(stream, out, self.factor.to(stream.dtype))
        return torch.add(stream, out, alpha=self.factor)


@hookimpl
def register_components(register: Register) -> None:
    register("scaled", Scaled)
