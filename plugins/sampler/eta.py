"""Eta sampling: keep tokens of probability at least η = min(ε, √ε · exp(−H)), H the entropy of the distribution.

Hewitt et al. 2022, arXiv:2210.15191.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor

from lamina.core import ComponentConfig, History, Register, Sampler, hookimpl


class EtaConfig(ComponentConfig):
    epsilon: float = Field(3e-4, gt=0, lt=1, description="ε: the threshold where the distribution is not too flat.")


class Eta(Sampler):
    """As epsilon sampling, with a lower threshold where the decoder is unsure."""

    Config = EtaConfig
    paper = "Hewitt et al. 2022, arXiv:2210.15191"
    only_removes = keeps_best = forgetful = True

    def __init__(self, config: EtaConfig) -> None:
        self.epsilon = config.epsilon

    def forward(self, logits: Tensor, history: History) -> Tensor:
        p = logits.softmax(-1)
        entropy = torch.special.entr(p).sum(-1, keepdim=True)  # (B, 1)
        eta = (math.sqrt(self.epsilon) * torch.exp(-entropy)).clamp(max=self.epsilon)
        return logits.masked_fill((p < eta) & (logits < logits.amax(-1, keepdim=True)), -torch.inf)


@hookimpl
def register_components(register: Register) -> None:
    register("eta", Eta)
