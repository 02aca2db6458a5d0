"""Sinusoidal positions: x + p, with p[2i] = sin(t / theta^(2i/D)) and p[2i + 1] = cos(t / theta^(2i/D)) at position t.

Vaswani et al. 2017, arXiv:1706.03762.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from lamina.core import ComponentConfig, ConfigProblem, Context, DeviceConstant, Position, Register, hookimpl


class SinusoidalConfig(ComponentConfig):
    theta: float = Field(10_000.0, gt=0, description="Base of the wavelengths: they run from 2π to 2π · theta.")

    def derive(self, dim: int) -> dict[str, Any]:
        if dim % 2:
            raise ConfigProblem("theta", f"dim must be even for pairs of sine and cosine, but is {dim}")
        return {}


class Sinusoidal(Position):
    """A fixed vector for each position, added to the embeddings."""

    Config = SinusoidalConfig
    paper = "Vaswani et al. 2017, arXiv:1706.03762"

    def __init__(self, config: SinusoidalConfig, dim: int) -> None:
        super().__init__()
        self.frequencies = DeviceConstant([config.theta ** (-i / dim) for i in range(0, dim, 2)])

    def embed(self, x: Tensor, context: Context) -> Tensor:
        positions = context.queries.positions.unsqueeze(-1)
        angles = positions * self.frequencies.on(x.device)  # (1 or B, T, D/2) float32
        waves = torch.stack([angles.sin(), angles.cos()], -1).flatten(-2)
        return x + waves.to(x.dtype)


@hookimpl
def register_components(register: Register) -> None:
    register("sinusoidal", Sinusoidal)
