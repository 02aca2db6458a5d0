"""Repetition penalty: a token that stands in the history gets logit / θ when positive, logit · θ when negative.

Keskar et al. 2019 (CTRL), arXiv:1909.05858.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from lamina.core import ComponentConfig, History, Register, Sampler, hookimpl


class RepetitionPenaltyConfig(ComponentConfig):
    value: float = Field(1.2, ge=0.01, le=100, description="θ: above 1 discourages seen tokens, below 1 favours them.")


class RepetitionPenalty(Sampler):
    """Make every token of prompt and continuation less likely to come again, however often it came.

    It depends on where the logits' zero lies, so it belongs before stages that move it.
    """

    Config = RepetitionPenaltyConfig
    paper = "Keskar et al. 2019, arXiv:1909.05858"
    removes_none = True

    def __init__(self, config: RepetitionPenaltyConfig) -> None:
        self.value = config.value

    def forward(self, logits: Tensor, history: History) -> Tensor:
        seen = history.counts(logits.shape[-1]) > 0  # (B, V)
        penalised = torch.where(logits > 0, logits / self.value, logits * self.value)
        return torch.where(seen, penalised, logits)


@hookimpl
def register_components(register: Register) -> None:
    register("repetition_penalty", RepetitionPenalty)
