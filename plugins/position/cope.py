"""CoPE: scores + q · e[p], where p counts, from the key to the query, the keys that the query lets count.

Golovneva et al. 2024, arXiv:2405.18719. With the scores s: gate[t] = sigmoid(s[t]) of each visible key, p[j] the sum of
gate[t] for t from j to the query, and e[p] between two whole numbers in proportion. So a head can count words, or
sentences, where others count tokens.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from lamina.core import Bias, ComponentConfig, Embedding, Position, Register, Scores, Span, hookimpl


class CoPEConfig(ComponentConfig):
    n_positions: int = Field(64, ge=2, description="Positions with a vector; what is farther takes the last one's.")
    shared: bool = Field(False, description="One table for all layers, or one for each.")


class CoPE(Position):
    """Positions that depend on what is said, measured by each query for itself."""

    Config = CoPEConfig
    paper = "Golovneva et al. 2024, arXiv:2405.18719"

    def __init__(self, config: CoPEConfig, head_dim: int) -> None:
        super().__init__()
        self.last = config.n_positions - 1
        self.table = Embedding(config.n_positions, head_dim)  # shared by all heads

    @classmethod
    def shared(cls, config: CoPEConfig) -> bool:
        return config.shared

    def bias(self, q: Tensor, queries: Span, keys: Span) -> Bias:
        def biases(scores: Scores) -> Tensor:
            gates = scores.values.sigmoid().masked_fill(~scores.allowed, 0)  # (B, H, T, S)
            positions = _count(gates, keys).clamp(max=self.last)
            below = positions.floor()
            share = positions - below
            by_position = q.to(gates.dtype) @ self.table.weight.to(gates.dtype).mT  # (B, H, T, n_positions)
            lower = by_position.gather(-1, below.long())
            upper = by_position.gather(-1, positions.ceil().long())
            return lower + (upper - lower) * share

        return biases


def _count(gates: Tensor, keys: Span) -> Tensor:
    """For each key the sum of its gate and of those of later keys, (B, H, T, S)"""
    if keys.start is not None:
        return gates.flip(-1).cumsum(-1).flip(-1)
    # A rolling cache holds keys in any order. Other documents' keys come between, but their gates are 0.
    order = keys.positions.argsort(-1, descending=True)[:, None, None, :].expand_as(gates)  # latest first
    counted = gates.gather(-1, order).cumsum(-1)
    return torch.empty_like(counted).scatter(-1, order, counted)


@hookimpl
def register_components(register: Register) -> None:
    register("cope", CoPE)
