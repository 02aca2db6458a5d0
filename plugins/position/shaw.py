"""Shaw's relative keys: scores + q · a[d] · scale, for the distance d to the key, no farther than max_distance.

Shaw et al. 2018, arXiv:1803.02155. The vectors a are shared by all heads. The paper also adds such vectors to the
values, and finds that it does no better with them; here are those of the keys alone.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from lamina.core import Bias, ComponentConfig, Embedding, Position, Register, Scores, Span, hookimpl


class ShawConfig(ComponentConfig):
    max_distance: int = Field(128, gt=0, description="Distance from which on all keys share a vector.")
    bidirectional: bool = Field(
        False, description="Later keys have vectors of their own; otherwise a later key counts as distance 0."
    )
    shared: bool = Field(False, description="One table for all layers, or one for each.")


class Shaw(Position):
    """A learned vector for each distance, added to the keys a query sees."""

    Config = ShawConfig
    paper = "Shaw et al. 2018, arXiv:1803.02155"

    def __init__(self, config: ShawConfig, head_dim: int) -> None:
        super().__init__()
        self.farthest, self.latest = config.max_distance, config.max_distance if config.bidirectional else 0
        self.table = Embedding(self.latest + 1 + self.farthest, head_dim)  # by distance, from the latest key on

    @classmethod
    def shared(cls, config: ShawConfig) -> bool:
        return config.shared

    def bias(self, q: Tensor, queries: Span, keys: Span) -> Bias:
        limits = -self.latest, self.farthest
        rows = queries.once_with(keys, (Shaw, limits), lambda: self._rows(queries, keys))

        def biases(scores: Scores) -> Tensor:
            wide = torch.promote_types(q.dtype, torch.float32)
            by_row = q.to(wide) @ self.table.weight.to(wide).mT * scores.scale  # (B, H, T, rows)
            return by_row.gather(-1, rows.expand(*q.shape[:3], -1))  # (B, H, T, S)

        return biases

    def _rows(self, queries: Span, keys: Span) -> Tensor:
        """The table's row for each pair, (1 or B, 1, T, S)"""
        distance = queries.positions.unsqueeze(-1) - keys.positions.unsqueeze(-2)
        return distance.clamp(-self.latest, self.farthest).add(self.latest).unsqueeze(1)


@hookimpl
def register_components(register: Register) -> None:
    register("shaw", Shaw)
