"""Frequency penalty: logit − α · c, c how often the token has been generated; the prompt does not count.

As OpenAI's API defines `frequency_penalty`.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from lamina.core import ComponentConfig, History, Register, Sampler, hookimpl


class FrequencyPenaltyConfig(ComponentConfig):
    value: float = Field(
        0.5, ge=-100, le=100, description="α, taken off for each time: above 0 discourages, below 0 favours."
    )


class FrequencyPenalty(Sampler):
    """Make a token the less likely the more often it was generated."""

    Config = FrequencyPenaltyConfig
    paper = "OpenAI API reference, frequency_penalty"
    removes_none = True

    def __init__(self, config: FrequencyPenaltyConfig) -> None:
        self.value = config.value

    def forward(self, logits: Tensor, history: History) -> Tensor:
        return logits - self.value * history.counts(logits.shape[-1], generated_only=True)


@hookimpl
def register_components(register: Register) -> None:
    register("frequency_penalty", FrequencyPenalty)
