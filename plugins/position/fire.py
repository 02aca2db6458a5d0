"""FIRE: scores + f(ln(c · d + 1) / ln(c · max(L, i) + 1)), for the query's position i and the distance d to the key.

Li et al. 2023, arXiv:2310.04418. f is a small network with an output for each head, c and L are learned. As the
distance is taken in proportion to how far the query stands, what f is asked lies between 0 and 1 in texts of any
length.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from lamina.core import ComponentConfig, Position, Register, Span, hookimpl

SMALL = 1e-6  # keeps the first token, which stands at 0, from dividing by 0


class FIREConfig(ComponentConfig):
    hidden_dim: int = Field(32, gt=0, description="Inner width of the network.")
    c: float = Field(0.1, gt=0, description="Where c starts: how soon distances are told apart by their logarithm.")
    threshold: float = Field(
        512.0, gt=0, description="Where L starts: queries up to this position take distances in proportion to it."
    )
    shared: bool = Field(False, description="One network for all layers, or one for each.")


class FIRE(Position):
    """A learned function of the distance in proportion to the position."""

    Config = FIREConfig
    paper = "Li et al. 2023, arXiv:2310.04418"

    def __init__(self, config: FIREConfig, n_heads: int) -> None:
        super().__init__()
        self.start = config.threshold
        self.c = nn.Parameter(torch.tensor(config.c))
        self.threshold = nn.Parameter(torch.tensor(1.0))  # in units of where it starts, as a step of training is small
        self.inner = nn.Parameter(torch.rand(config.hidden_dim) * 2 - 1)
        self.inner_bias = nn.Parameter(torch.rand(config.hidden_dim) * 2 - 1)
        self.outer = nn.Parameter((torch.rand(n_heads, config.hidden_dim) * 2 - 1) * config.hidden_dim**-0.5)
        self.outer_bias = nn.Parameter(torch.zeros(n_heads))

    @classmethod
    def shared(cls, config: FIREConfig) -> bool:
        return config.shared

    def bias(self, q: Tensor, queries: Span, keys: Span) -> Tensor:
        return queries.once_with(keys, self, lambda: self._biases(queries, keys))

    def _biases(self, queries: Span, keys: Span) -> Tensor:
        wide = torch.promote_types(self.c.dtype, torch.float32)
        c, threshold, inner, inner_bias, outer, outer_bias = (
            parameter.to(wide)
            for parameter in (self.c, self.threshold, self.inner, self.inner_bias, self.outer, self.outer_bias)
        )
        position = queries.positions.unsqueeze(-1).to(wide)  # (1 or B, T, 1)
        distance = position - keys.positions.unsqueeze(-2)  # (1 or B, T, S)
        longest = torch.maximum(position, (threshold * self.start).abs())
        share = torch.log1p((c * distance).abs()) / (torch.log1p((c * longest).abs()) + SMALL)
        hidden = F.relu(share.unsqueeze(-1) * inner + inner_bias)  # (1 or B, T, S, hidden_dim)
        return F.linear(hidden, outer, outer_bias).permute(0, 3, 1, 2)  # (1 or B, H, T, S)


@hookimpl
def register_components(register: Register) -> None:
    register("fire", FIRE)
