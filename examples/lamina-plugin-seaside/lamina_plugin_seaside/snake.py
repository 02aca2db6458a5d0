"""Snake: y = x + sin²(a·x) / a, with a learned for each block.  Ziyin et al. 2020, arXiv:2006.08195."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from lamina.core import Activation, ComponentConfig


class SnakeConfig(ComponentConfig):
    frequency: float = Field(1.0, gt=0, description="Where a starts.")
    learned: bool = Field(True, description="Whether a is learned.")


class Snake(Activation):
    """Rises like the identity, with a wave on top."""

    Config = SnakeConfig
    paper = "Ziyin et al. 2020, arXiv:2006.08195"

    def __init__(self, config: SnakeConfig) -> None:
        super().__init__()
        self.frequency = nn.Parameter(torch.tensor(config.frequency), requires_grad=config.learned)

    def forward(self, x: Tensor) -> Tensor:
        a = self.frequency.to(x.dtype)
        return x + torch.sin(a * x).square() / a
