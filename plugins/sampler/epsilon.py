"""Epsilon sampling: keep tokens of probability at least ε.  Hewitt et al. 2022, arXiv:2210.15191."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from lamina.core import ComponentConfig, History, Register, Sampler, hookimpl


class EpsilonConfig(ComponentConfig):
    epsilon: float = Field(3e-4, gt=0, lt=1, description="ε: least probability of a kept token.")


class Epsilon(Sampler):
    """Keep tokens of probability ε or more, and the most likely ones whatever they have."""

    Config = EpsilonConfig
    paper = "Hewitt et al. 2022, arXiv:2210.15191"
    only_removes = keeps_best = forgetful = True

    def __init__(self, config: EpsilonConfig) -> None:
        self.epsilon = config.epsilon

    def forward(self, logits: Tensor, history: History) -> Tensor:
        rare = logits.softmax(-1) < self.epsilon
        return logits.masked_fill(rare & (logits < logits.amax(-1, keepdim=True)), -torch.inf)


@hookimpl
def register_components(register: Register) -> None:
    register("epsilon", Epsilon)
