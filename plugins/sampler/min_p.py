"""Min-p: keep tokens at least p times as likely as the most likely one.  Nguyen et al. 2024, arXiv:2407.01082."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor

from lamina.core import ComponentConfig, History, Register, Sampler, hookimpl


class MinPConfig(ComponentConfig):
    p: float = Field(0.05, gt=0, le=1, description="Least probability of a kept token, as a share of the highest one.")


class MinP(Sampler):
    """Keep few tokens where the decoder is sure and many where it is not."""

    Config = MinPConfig
    paper = "Nguyen et al. 2024, arXiv:2407.01082"
    only_removes = keeps_best = forgetful = True

    def __init__(self, config: MinPConfig) -> None:
        self.gap = math.log(config.p)  # a ratio of probabilities is a difference of logits

    def forward(self, logits: Tensor, history: History) -> Tensor:
        best = logits.amax(-1, keepdim=True)  # (B, 1)
        return logits.masked_fill(logits - best < self.gap, -torch.inf)


@hookimpl
def register_components(register: Register) -> None:
    register("min_p", MinP)
