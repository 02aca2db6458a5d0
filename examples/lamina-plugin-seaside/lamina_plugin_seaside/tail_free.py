"""Tail-free sampling: cut the sorted distribution where its curve has flattened.

With p sorted downwards, the second differences |p''| are scaled to sum to one; tokens are kept while their running sum
stays within z, and one more.  trentbrick.github.io/Tail-Free-Sampling, 2020.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from lamina.core import ComponentConfig, History, Sampler


class TailFreeConfig(ComponentConfig):
    z: float = Field(0.95, gt=0, le=1, description="Share of the curvature that is kept; 1 keeps every token.")


class TailFree(Sampler):
    """Remove the tail of tokens that differ little from each other in probability."""

    Config = TailFreeConfig
    paper = "trentbrick.github.io/Tail-Free-Sampling"

    def __init__(self, config: TailFreeConfig) -> None:
        self.z = config.z

    def forward(self, logits: Tensor, history: History) -> Tensor:
        ordered, order = logits.softmax(-1).sort(-1, descending=True)
        curvature = ordered.diff(dim=-1).diff(dim=-1).abs()  # (B, V - 2), of the tokens from the second on
        if self.z == 1 or curvature.shape[-1] == 0:
            return logits
        running = (curvature / curvature.sum(-1, keepdim=True).clamp(min=1e-12)).cumsum(-1)
        tail = torch.zeros_like(ordered, dtype=torch.bool)
        tail[:, 2:] = running > self.z
        tail[:, 2:] &= ordered[:, 2:] < ordered[:, :1]  # of tokens that are all alike none is the tail
        return logits.masked_fill(tail.scatter(-1, order, tail), -torch.inf)
