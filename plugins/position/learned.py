"""Learned positions: x + table[position + offset].  Gehring et al. 2017, arXiv:1705.03122; GPT-2."""

from __future__ import annotations

from typing import Any

from pydantic import Field
from torch import Tensor

from lamina.core import ComponentConfig, Context, Embedding, GenerationError, Position, Register, hookimpl


class LearnedConfig(ComponentConfig):
    size: int | None = Field(None, gt=0, description="Positions in the table. Default: context_length.")
    offset: int = Field(0, ge=0, description="Rows before the one of position 0 (OPT: 2).")

    def derive(self, context_length: int) -> dict[str, Any]:
        return {"size": context_length} if self.size is None else {}


class Learned(Position):
    """A vector for each position, added to the embeddings. There is none past the end of the table."""

    Config = LearnedConfig
    paper = "Gehring et al. 2017, arXiv:1705.03122"

    def __init__(self, config: LearnedConfig, dim: int) -> None:
        super().__init__()
        assert config.size is not None, "set by derive"
        self.size, self.offset = config.size, config.offset
        self.table = Embedding(config.size + config.offset, dim)

    def embed(self, x: Tensor, context: Context) -> Tensor:
        queries = context.queries
        if queries.start is not None:
            self._check(queries.start + queries.length)
        elif queries.positions.device.type == "cpu":  # elsewhere reading the value would wait for the device
            self._check(int(queries.positions.max()) + 1)
        positions = queries.positions + self.offset if self.offset else queries.positions
        vectors: Tensor = self.table(positions)
        return x + vectors.to(x.dtype)  # (B, T, D) + (1 or B, T, D)

    def _check(self, length: int) -> None:
        if length > self.size:
            raise GenerationError(
                f"a text of {length} tokens is longer than the {self.size} positions that were learned",
                hint="shorten the text, or train with a larger context_length",
            )


@hookimpl
def register_components(register: Register) -> None:
    register("learned", Learned)
