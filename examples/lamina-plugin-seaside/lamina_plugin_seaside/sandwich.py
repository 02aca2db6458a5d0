"""Sandwich: scores + (Σ_i cos(distance / 10000^(2i/d)) - d/2) · n_heads / (8·h) in head h = 1 … n_heads, i = 1 … d/2.

The sum is the inner product of two sinusoidal embeddings of width d, which depends on their distance alone.
Chi et al. 2022, arXiv:2212.10356.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from lamina.core import ComponentConfig, DeviceConstant, Position, Span


class SandwichConfig(ComponentConfig):
    width: int = Field(128, gt=0, multiple_of=2, description="d: width of the embeddings whose product it is.")
    theta: float = Field(10_000.0, gt=1, description="Base of the wavelengths.")


class Sandwich(Position):
    """A penalty that grows like the logarithm of the distance, at a rate of its own in each head."""

    Config = SandwichConfig
    paper = "Chi et al. 2022, arXiv:2212.10356"

    def __init__(self, config: SandwichConfig, n_heads: int) -> None:
        super().__init__()
        half = config.width // 2
        self.half = half
        self.frequencies = [config.theta ** (-2 * i / config.width) for i in range(1, half + 1)]
        self.slopes = DeviceConstant([n_heads / (8 * h) for h in range(1, n_heads + 1)])

    def bias(self, q: Tensor, queries: Span, keys: Span) -> Tensor:
        return queries.once_with(keys, self, lambda: self._penalties(queries, keys))

    def _penalties(self, queries: Span, keys: Span) -> Tensor:
        distance = (queries.positions.unsqueeze(-1) - keys.positions.unsqueeze(-2)).float()  # (1 or B, T, S)
        total = distance.new_zeros(distance.shape)
        for frequency in self.frequencies:  # one at a time: (T, S, d/2) would be large
            total = total + (distance * frequency).cos()
        return (total - self.half).unsqueeze(1) * self.slopes.on(distance.device).view(-1, 1, 1)
