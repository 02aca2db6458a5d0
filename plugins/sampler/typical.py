"""Locally typical sampling: keep the tokens whose −log p is nearest to the entropy, as many as reach probability p.

Meister et al. 2022, arXiv:2202.00666.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from lamina.core import ComponentConfig, History, Register, Sampler, hookimpl


class TypicalConfig(ComponentConfig):
    p: float = Field(0.95, gt=0, le=1, description="Probability the kept tokens reach together (τ); 1 keeps all.")


class Typical(Sampler):
    """Keep the fewest tokens of about the expected surprise that together reach probability p; the likeliest may go."""

    Config = TypicalConfig
    paper = "Meister et al. 2022, arXiv:2202.00666"
    only_removes = forgetful = True

    def __init__(self, config: TypicalConfig) -> None:
        self.p = config.p

    def forward(self, logits: Tensor, history: History) -> Tensor:
        if self.p == 1:  # a rounded sum may reach 1 before the last token
            return logits
        surprise = -logits.log_softmax(-1)
        p = (-surprise).exp()
        entropy = torch.special.entr(p).sum(-1, keepdim=True)  # (B, 1)
        order = torch.sort((surprise - entropy).abs(), dim=-1, stable=True).indices
        total = p.gather(-1, order).cumsum(-1)
        needed = torch.ones_like(total, dtype=torch.bool)
        needed[:, 1:] = total[:, :-1] < self.p  # those before do not reach p yet
        return logits.masked_fill(~torch.zeros_like(needed).scatter(-1, order, needed), -torch.inf)


@hookimpl
def register_components(register: Register) -> None:
    register("typical", Typical)
