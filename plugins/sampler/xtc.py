"""XTC (exclude top choices): now and then remove all tokens of probability ≥ t but the least likely of them.

Weidmann 2024, oobabooga/text-generation-webui#6335.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from lamina.core import ComponentConfig, History, Register, Sampler, hookimpl


class XTCConfig(ComponentConfig):
    threshold: float = Field(
        0.1, ge=0, le=1, description="t: a token of this probability is a top choice; above 0.5 there are never two."
    )
    probability: float = Field(0.5, ge=0, le=1, description="How often, of all tokens, top choices are removed.")


class XTC(Sampler):
    """Leave the beaten path at random places: where several tokens would do, all but the least likely of them go."""

    Config = XTCConfig
    paper = "Weidmann 2024, oobabooga/text-generation-webui#6335"
    only_removes = forgetful = True

    def __init__(self, config: XTCConfig, generators: Sequence[torch.Generator]) -> None:
        self.threshold, self.probability = config.threshold, config.probability
        self.generators = list(generators)

    def forward(self, logits: Tensor, history: History) -> Tensor:
        draws = [float(torch.rand((), generator=g, device=g.device)) for g in self.generators]
        now = torch.tensor(draws, device=logits.device).unsqueeze(1) < self.probability  # (B, 1)
        p = logits.softmax(-1)
        top = (p >= self.threshold) & (logits > -torch.inf)
        least = p.masked_fill(~top, torch.inf).argmin(-1, keepdim=True)  # (B, 1)
        several = top.sum(-1, keepdim=True) > 1
        return logits.masked_fill((top & now & several).scatter(-1, least, False), -torch.inf)

    def reorder(self, rows: Tensor) -> None:
        states = [generator.clone_state() for generator in self.generators]
        self.generators = [states[row].clone_state() for row in rows.tolist()]


@hookimpl
def register_components(register: Register) -> None:
    register("xtc", XTC)
