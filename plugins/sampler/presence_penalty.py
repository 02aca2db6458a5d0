"""Presence penalty: logit − α for every token that has been generated, however often; the prompt does not count.

As OpenAI's API defines `presence_penalty`.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from lamina.core import ComponentConfig, History, Register, Sampler, hookimpl


class PresencePenaltyConfig(ComponentConfig):
    value: float = Field(
        0.5, ge=-100, le=100, description="α: above 0 discourages generated tokens, below favours them."
    )


class PresencePenalty(Sampler):
    """Make every token that was generated before less likely, by the same amount."""

    Config = PresencePenaltyConfig
    paper = "OpenAI API reference, presence_penalty"
    removes_none = True

    def __init__(self, config: PresencePenaltyConfig) -> None:
        self.value = config.value

    def forward(self, logits: Tensor, history: History) -> Tensor:
        return logits - self.value * (history.counts(logits.shape[-1], generated_only=True) > 0)


@hookimpl
def register_components(register: Register) -> None:
    register("presence_penalty", PresencePenalty)
