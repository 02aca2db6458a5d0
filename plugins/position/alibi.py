"""ALiBi: scores - slope · (q_position - k_position), one slope a head.  Press et al. 2021, arXiv:2108.12409.

With n heads, n a power of two, the slopes are 2^(-8/n), 2^(-16/n), …, 2^-8. Otherwise the slopes of the next smaller
power of two come first, then every other slope of twice that power.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from lamina.core import ComponentConfig, DeviceConstant, Position, Register, Span, hookimpl


class ALiBiConfig(ComponentConfig):
    max_bias: float = Field(8.0, gt=0, description="The gentlest slope is 2 to the power of minus this.")
    scale: float = Field(1.0, gt=0, description="Multiplies every slope (Falcon-RW: 1 / sqrt(head_dim)).")


class ALiBi(Position):
    """A penalty that grows with distance, at a rate of its own in each head."""

    Config = ALiBiConfig
    paper = "Press et al. 2021, arXiv:2108.12409"

    def __init__(self, config: ALiBiConfig, n_heads: int) -> None:
        super().__init__()
        self.slopes = DeviceConstant([config.scale * slope for slope in slopes(n_heads, config.max_bias)])

    def bias(self, q: Tensor, queries: Span, keys: Span) -> Tensor:
        return queries.once_with(keys, self, lambda: self._penalties(queries, keys))

    def _penalties(self, queries: Span, keys: Span) -> Tensor:
        distance = keys.positions.unsqueeze(-2) - queries.positions.unsqueeze(-1)  # (1 or B, T, S), zero or less
        return distance.unsqueeze(1) * self.slopes.on(distance.device).view(-1, 1, 1)  # (1 or B, H, T, S) float32


def slopes(n_heads: int, max_bias: float) -> list[float]:
    """One slope a head, steepest first within each of the two series."""
    power = 1 << (n_heads.bit_length() - 1)  # the largest power of two that is not above n_heads
    first = [2 ** (-max_bias * i / power) for i in range(1, power + 1)]
    return first + [2 ** (-max_bias * i / (2 * power)) for i in range(1, 2 * (n_heads - power), 2)]


@hookimpl
def register_components(register: Register) -> None:
    register("alibi", ALiBi)
