"""Chunks: a token sees the tokens before it in its own chunk, floor(q / size) = floor(k / size).

Llama 4 (Meta 2025) in its layers with rope, chunks of 8192 tokens; blockwise local attention of Child et al. 2019,
arXiv:1904.10509. Chunks are counted from the beginning of the document.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from lamina.core import ComponentConfig, Mask, Register, hookimpl


class ChunkedConfig(ComponentConfig):
    size: int = Field(gt=0, description="Tokens of a chunk.")


class Chunked(Mask):
    """floor(q / size) = floor(k / size)."""

    Config = ChunkedConfig
    paper = "Meta 2025, Llama 4"

    def __init__(self, config: ChunkedConfig) -> None:
        self.size = config.size

    @property
    def pattern(self) -> tuple[object, ...]:
        return Chunked, self.size

    @property
    def reach(self) -> int:
        return self.size

    @property
    def fills_reach(self) -> bool:
        return self.size == 1

    @property
    def dense_up_to(self) -> float:
        return self.size

    def allowed(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
        return q_positions // self.size == k_positions // self.size


@hookimpl
def register_components(register: Register) -> None:
    register("chunked", Chunked)
