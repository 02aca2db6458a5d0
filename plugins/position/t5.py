"""T5's relative positions: a learned number for each head and bucket of distances, added to the scores.

Raffel et al. 2020, arXiv:1910.10683. Half of the buckets hold one distance each, the other half ranges that widen by
the logarithm up to max_distance; farther keys share the last. T5 does not scale its scores: give the attention scale:
1.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from lamina.core import ComponentConfig, ConfigProblem, Embedding, Position, Register, Span, hookimpl


class T5Config(ComponentConfig):
    n_buckets: int = Field(32, ge=2, description="Buckets of distances.")
    max_distance: int = Field(128, ge=2, description="Distance from which on all keys share the last bucket.")
    bidirectional: bool = Field(
        False, description="Half of the buckets are for later keys; otherwise a later key counts as distance 0."
    )
    shared: bool = Field(True, description="One table for all layers, or one for each.")

    def derive(self) -> dict[str, Any]:
        if self.bidirectional and self.n_buckets % 4:
            raise ConfigProblem(
                "n_buckets", f"n_buckets ({self.n_buckets}) must be a multiple of 4 for both directions"
            )
        if self.max_distance <= self.n_exact:
            raise ConfigProblem(
                "max_distance", f"max_distance ({self.max_distance}) must exceed the {self.n_exact} exact distances"
            )
        return {}

    @property
    def n_one_way(self) -> int:
        """Buckets of one direction."""
        return self.n_buckets // 2 if self.bidirectional else self.n_buckets

    @property
    def n_exact(self) -> int:
        """Buckets that hold one distance."""
        return self.n_one_way // 2


class T5(Position):
    """Learned penalties by distance, the finer the nearer."""

    Config = T5Config
    paper = "Raffel et al. 2020, arXiv:1910.10683"

    def __init__(self, config: T5Config, n_heads: int) -> None:
        super().__init__()
        self.n_one_way, self.n_exact = config.n_one_way, config.n_exact
        self.max_distance, self.bidirectional = config.max_distance, config.bidirectional
        self.table = Embedding(config.n_buckets, n_heads)

    @classmethod
    def shared(cls, config: T5Config) -> bool:
        return config.shared

    def bias(self, q: Tensor, queries: Span, keys: Span) -> Tensor:
        return queries.once_with(keys, self, lambda: self._penalties(queries, keys))

    def _penalties(self, queries: Span, keys: Span) -> Tensor:
        return F.embedding(self.buckets(queries, keys), self.table.weight).permute(0, 3, 1, 2)  # (1 or B, H, T, S)

    def buckets(self, queries: Span, keys: Span) -> Tensor:
        """The bucket of each pair, (1 or B, T, S) int64"""
        back = queries.positions.unsqueeze(-1) - keys.positions.unsqueeze(-2)
        later = (back < 0) * self.n_one_way if self.bidirectional else 0
        distance = back.abs() if self.bidirectional else back.clamp(min=0)
        octaves = torch.log(distance.clamp(min=self.n_exact).float() / self.n_exact)
        widening = octaves / math.log(self.max_distance / self.n_exact) * (self.n_one_way - self.n_exact)
        coarse = (self.n_exact + widening.long()).clamp(max=self.n_one_way - 1)
        return torch.where(distance < self.n_exact, distance, coarse) + later


@hookimpl
def register_components(register: Register) -> None:
    register("t5", T5)
