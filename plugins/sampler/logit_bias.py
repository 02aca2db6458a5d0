"""Logit bias: logit + bias for the tokens named.  As OpenAI's API defines `logit_bias`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from lamina.core import ComponentConfig, ConfigProblem, History, Register, Sampler, hookimpl

Bias = Annotated[float, Field(ge=-100, le=100)]


class LogitBiasConfig(ComponentConfig):
    bias: dict[str, Bias] = Field(
        description="What is added to the logit of each token id, -100 to 100: {50256: -100} all but bans a token."
    )

    def derive(self) -> dict[str, object]:
        wrong = next((key for key in self.bias if not (key.isascii() and key.isdigit())), None)
        if wrong is not None:
            raise ConfigProblem("bias", f"its keys are token ids, and '{wrong}' is none", "write {token id: number}")
        return {}


class LogitBias(Sampler):
    """Make the tokens named more or less likely at every step."""

    Config = LogitBiasConfig
    paper = "OpenAI API reference, logit_bias"
    removes_none = forgetful = True

    @classmethod
    def examples(cls, directory: Path) -> list[dict[str, Any]]:
        return [{"bias": {"3": 1.5, "7": -100.0}}]

    def __init__(self, config: LogitBiasConfig, vocab_size: int) -> None:
        ids = [int(key) for key in config.bias]
        wrong = next((token for token in ids if token >= vocab_size), None)
        if wrong is not None:
            raise ConfigProblem("bias", f"there is no token {wrong}", f"ids go from 0 to {vocab_size - 1}")
        self.bias = torch.zeros(vocab_size)
        self.bias[torch.tensor(ids, dtype=torch.int64)] = torch.tensor(list(config.bias.values()))

    def forward(self, logits: Tensor, history: History) -> Tensor:
        if self.bias.device != logits.device:
            self.bias = self.bias.to(logits.device)
        return logits + self.bias


@hookimpl
def register_components(register: Register) -> None:
    register("logit_bias", LogitBias)
