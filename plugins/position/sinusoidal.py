"""Sinusoidal positions: x + p, with p[2i] = sin(t / theta^(2i/D)) and p[2i + 1] = cos(t / theta^(2i/D)) at position t.

Vaswani et al. 2017, arXiv:1706.03762. Implementations differ in three ways, and a model keeps to the one it was trained
with: CTRL puts all sines first, XGLM does and spaces the wavelengths to end at theta itself, and it begins at t = 2.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from lamina.core import ComponentConfig, ConfigProblem, Context, DeviceConstant, Position, Register, hookimpl


class SinusoidalConfig(ComponentConfig):
    theta: float = Field(10_000.0, gt=0, description="Base of the wavelengths: they run from 2π to 2π · theta.")
    layout: Literal["interleaved", "half"] = Field(
        "interleaved", description="interleaved: a sine and its cosine side by side. half: all sines, then all cosines."
    )
    inclusive: bool = Field(False, description="The longest wavelength is 2π · theta itself, not one step short of it.")
    offset: int = Field(0, ge=0, description="Where the first token stands (XGLM: 2).")

    def derive(self, dim: int) -> dict[str, Any]:
        if dim % 2:
            raise ConfigProblem("layout", f"dim must be even for pairs of sine and cosine, but is {dim}")
        if self.inclusive and dim < 4:
            raise ConfigProblem("inclusive", f"one wavelength cannot be first and last, and dim is {dim}")
        return {}


class Sinusoidal(Position):
    """A fixed vector for each position, added to the embeddings."""

    Config = SinusoidalConfig
    paper = "Vaswani et al. 2017, arXiv:1706.03762"

    def __init__(self, config: SinusoidalConfig, dim: int) -> None:
        super().__init__()
        steps = dim - 2 if config.inclusive else dim
        self.frequencies = DeviceConstant([config.theta ** (-i / steps) for i in range(0, dim, 2)])
        self.interleaved, self.offset = config.layout == "interleaved", config.offset

    def embed(self, x: Tensor, context: Context) -> Tensor:
        positions = context.queries.positions.unsqueeze(-1) + self.offset
        angles = positions * self.frequencies.on(x.device)  # (1 or B, T, D/2) float32
        sines, cosines = angles.sin(), angles.cos()
        waves = torch.stack([sines, cosines], -1).flatten(-2) if self.interleaved else torch.cat([sines, cosines], -1)
        return x + waves.to(x.dtype)


@hookimpl
def register_components(register: Register) -> None:
    register("sinusoidal", Sinusoidal)
