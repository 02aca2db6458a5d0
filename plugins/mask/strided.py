"""Strided pattern of the Sparse Transformer: the last `stride` tokens, and every `stride`-th one before them.

Child et al. 2019, arXiv:1904.10509, section 4.3. With l = stride the paper names two sets of keys,

    local:  q - l <= k <= q          strided:  (q - k) mod l = 0

and gives one to each head, or each layer, in turn, or their union to every head. Heads of a layer share one mask here,
so `part: both` is the union, and two kinds of block with a part each take turns by layer.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from lamina.core import ALWAYS_DENSE, ComponentConfig, Mask, Register, hookimpl


class StridedConfig(ComponentConfig):
    stride: int = Field(
        gt=0, description="Tokens seen before the token itself, and distance between those further back."
    )
    part: Literal["both", "local", "strided"] = Field(
        "both",
        description="local: the last `stride` tokens and the token itself. strided: every `stride`-th token. "
        "both: the union.",
    )


class Strided(Mask):
    """q - k <= stride, or q - k a multiple of stride."""

    Config = StridedConfig
    paper = "Child et al. 2019, arXiv:1904.10509"

    def __init__(self, config: StridedConfig) -> None:
        self.stride, self.part = config.stride, config.part

    @property
    def pattern(self) -> tuple[object, ...]:
        return Strided, self.stride, self.part

    @property
    def reach(self) -> int | None:
        return self.stride + 1 if self.part == "local" else None

    @property
    def fills_reach(self) -> bool:
        return self.part == "local"

    @property
    def dense_up_to(self) -> float:
        if self.part == "local":
            return self.stride + 1
        if self.stride == 1:
            return ALWAYS_DENSE
        return 1 if self.part == "strided" else self.stride + 1

    def allowed(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
        distance = q_positions - k_positions
        local, strided = distance <= self.stride, distance % self.stride == 0
        return {"both": local | strided, "local": local, "strided": strided}[self.part]


@hookimpl
def register_components(register: Register) -> None:
    register("strided", Strided)
