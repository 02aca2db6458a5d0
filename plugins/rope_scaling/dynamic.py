"""Dynamic NTK scaling: theta grows with the text, by (factor · L / L0 - factor + 1)^(d / (d - 2)).

Described in Peng et al. 2023, arXiv:2309.00071. L is the text's length, L0 the one that was trained (a shorter text is
as it was), d the number of turned channels.
"""

from __future__ import annotations

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


class DynamicConfig(ComponentConfig):
    factor: float = Field(ge=1, description="How much theta grows with the text.")
    original_context_length: int | None = Field(
        None, gt=0, description="Longest text of the training. Default: context_length."
    )
    length: int | None = Field(
        None,
        gt=0,
        description="Take every text to be this long. Default: its own length; in cached calls, what the cache was "
        "made for.",
    )

    def derive(self, width: int, context_length: int) -> dict[str, Any]:
        if width < 4:
            raise ConfigProblem("factor", f"only {width} channels are turned, and two pairs are the least to scale")
        return {"original_context_length": context_length} if self.original_context_length is None else {}


class Dynamic(RopeScaling):
    """NTK-aware scaling by just as much as a text needs."""

    Config = DynamicConfig
    paper = "Peng et al. 2023, arXiv:2309.00071"

    def __init__(self, config: DynamicConfig, theta: float, width: int) -> None:
        assert config.original_context_length is not None, "set by derive"
        self.factor, self.original, self.length = config.factor, config.original_context_length, config.length
        self.frequencies = DeviceConstant(rope_frequencies(theta, width))
        # theta · g^(d / (d - 2)) to the power -i / d is theta^(-i / d) · g^(-i / (d - 2))
        self.exponents = DeviceConstant([-i / (width - 2) for i in range(0, width, 2)])

    @classmethod
    def examples(cls, directory: Path) -> list[dict[str, Any]]:
        return [{"factor": 2.0, "original_context_length": 4, "length": 16}]

    def turns(self, queries: Span) -> tuple[Tensor, float]:
        device = queries.positions.device
        lengths = queries.text_lengths if self.length is None else self.length
        if isinstance(lengths, int):
            lengths = torch.full((1, 1), lengths, device=device)
        longer = lengths.clamp(min=self.original).float().unsqueeze(-1) / self.original  # (1 or B, 1 or T, 1)
        growth = self.factor * longer - (self.factor - 1)
        return self.frequencies.on(device) * growth ** self.exponents.on(device), 1.0


@hookimpl
def register_components(register: Register) -> None:
    register("dynamic", Dynamic)
