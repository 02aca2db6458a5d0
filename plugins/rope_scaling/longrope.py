"""LongRoPE: a searched divisor for every pair's frequency, one list for short texts, one for long.

Ding et al. 2024, arXiv:2402.13753. Texts up to original_context_length are short. Turned channels are multiplied by
sqrt(1 + ln(factor) / ln(original_context_length)).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from lamina.core import (
    ComponentConfig,
    ConfigProblem,
    DeviceConstant,
    Register,
    RopeScaling,
    Span,
    hookimpl,
    rope_frequencies,
)


class LongRoPEConfig(ComponentConfig):
    original_context_length: int = Field(gt=1, description="Longest text of the training before the stretching.")
    short_factor: list[float] = Field(description="Divisors for texts up to that length, one for each pair.")
    long_factor: list[float] = Field(description="Divisors for longer texts, one for each pair.")
    factor: float | None = Field(
        None, ge=1, description="How many times longer texts become. Default: context_length / original_context_length."
    )
    attention_factor: float | None = Field(
        None, gt=0, description="Multiplies turned channels. Default: from factor and original_context_length."
    )
    short_attention_factor: float | None = Field(
        None, gt=0, description="The same for short texts (Phi-3.5-MoE). Default: attention_factor."
    )
    length: int | None = Field(
        None,
        gt=0,
        description="Take every text to be this long. Default: its own length; in cached calls, what the cache was "
        "made for.",
    )

    def derive(self, width: int, context_length: int) -> dict[str, Any]:
        for field in ("short_factor", "long_factor"):
            divisors = getattr(self, field)
            if len(divisors) != width // 2:
                raise ConfigProblem(
                    field, f"{field} has {len(divisors)} divisors, and {width // 2} pairs of channels are turned"
                )
            if min(divisors) <= 0:
                raise ConfigProblem(field, f"every divisor must be greater than 0, and one is {min(divisors):g}")
        original = self.original_context_length
        factor = max(1.0, context_length / original) if self.factor is None else self.factor
        usual = math.sqrt(1 + math.log(factor) / math.log(original))
        attention_factor = usual if self.attention_factor is None else self.attention_factor
        short = attention_factor if self.short_attention_factor is None else self.short_attention_factor
        return {"factor": factor, "attention_factor": attention_factor, "short_attention_factor": short}


class LongRoPE(RopeScaling):
    """Frequencies found by search, apart for short and for long texts."""

    Config = LongRoPEConfig
    paper = "Ding et al. 2024, arXiv:2402.13753"

    def __init__(self, config: LongRoPEConfig, theta: float, width: int) -> None:
        assert config.attention_factor is not None, "set by derive"
        assert config.short_attention_factor is not None, "set by derive"
        self.original, self.length = config.original_context_length, config.length
        trained = rope_frequencies(theta, width)
        self.short = DeviceConstant([f / divisor for f, divisor in zip(trained, config.short_factor, strict=True)])
        self.long = DeviceConstant([f / divisor for f, divisor in zip(trained, config.long_factor, strict=True)])
        self.short_attention, self.long_attention = config.short_attention_factor, config.attention_factor

    @classmethod
    def examples(cls, directory: Path) -> list[dict[str, Any]]:
        return [
            {
                "original_context_length": 4,
                "short_factor": [1.0, 1.1, 1.2, 1.3],  # for the four pairs of a head of eight channels
                "long_factor": [1.0, 2.0, 4.0, 8.0],
                "length": 16,
            }
        ]

    def turns(self, queries: Span) -> tuple[Tensor, Tensor | float]:
        device = queries.positions.device
        lengths = queries.text_lengths if self.length is None else self.length
        short, long = self.short.on(device), self.long.on(device)
        if isinstance(lengths, int):
            return (long, self.long_attention) if lengths > self.original else (short, self.short_attention)
        is_long = (lengths > self.original).unsqueeze(-1)  # (B, T, 1)
        return torch.where(is_long, long, short), torch.where(is_long, self.long_attention, self.short_attention)


@hookimpl
def register_components(register: Register) -> None:
    register("longrope", LongRoPE)
