"""Top-nσ: keep tokens whose logit is within n standard deviations of the highest.

Tang et al. 2024, arXiv:2411.07641.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from lamina.core import ComponentConfig, History, Register, Sampler, hookimpl


class TopNSigmaConfig(ComponentConfig):
    n: float = Field(1.0, gt=0, description="How many standard deviations below the highest logit a token may lie.")


class TopNSigma(Sampler):
    """Keep the tokens that stand out of the noise; the same ones at any temperature.

    The deviation is that of the logits that stages before have left.
    """

    Config = TopNSigmaConfig
    paper = "Tang et al. 2024, arXiv:2411.07641"
    only_removes = keeps_best = forgetful = True

    def __init__(self, config: TopNSigmaConfig) -> None:
        self.n = config.n

    def forward(self, logits: Tensor, history: History) -> Tensor:
        left = logits > -torch.inf
        n_left = left.sum(-1, keepdim=True)  # (B, 1)
        best = logits.amax(-1, keepdim=True)
        gap = (logits - best).masked_fill(~left, 0)  # from the highest, so that large logits lose no digits
        variance = (gap - gap.sum(-1, keepdim=True) / n_left).masked_fill(~left, 0).square().sum(-1, keepdim=True)
        return logits.masked_fill(logits - best < -self.n * (variance / n_left).sqrt(), -torch.inf)


@hookimpl
def register_components(register: Register) -> None:
    register("top_n_sigma", TopNSigma)
