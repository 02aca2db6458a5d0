"""Top-k: keep the k most likely tokens.  Fan et al. 2018, arXiv:1805.04833."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from lamina.core import ComponentConfig, History, Register, Sampler, hookimpl


class TopKConfig(ComponentConfig):
    k: int = Field(50, ge=1, description="How many tokens stay; more than the vocabulary has keeps all.")


class TopK(Sampler):
    """Keep the k most likely tokens. Those that tie with the k-th stay too: choosing among equals is arbitrary."""

    Config = TopKConfig
    paper = "Fan et al. 2018, arXiv:1805.04833"
    only_removes = keeps_best = forgetful = True

    def __init__(self, config: TopKConfig) -> None:
        self.k = config.k

    def forward(self, logits: Tensor, history: History) -> Tensor:
        kth = logits.topk(min(self.k, logits.shape[-1])).values[:, -1:]  # (B, 1)
        return logits.masked_fill(logits < kth, -torch.inf)


@hookimpl
def register_components(register: Register) -> None:
    register("top_k", TopK)
