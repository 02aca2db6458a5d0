"""Hash routing: the token's id alone decides, by a fixed random table id -> k experts that gives each as many ids.

Roller et al. 2021, arXiv:2106.04426: no router is learned and the chosen share alike, 1/k each. With a `score` a
learned gate weighs them, s = score(W·x), s_i / Σ_chosen s · scale, as in the first layers of DeepSeek-V4.
The table is drawn from the seed and the layer, and is kept in checkpoints.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from lamina.core import (
    SCORES,
    ComponentConfig,
    ConfigProblem,
    Context,
    Register,
    Router,
    RouterLinear,
    Routing,
    check_experts_per_token,
    hookimpl,
)


class HashConfig(ComponentConfig):
    experts_per_token: int = Field(1, gt=0, description="How many experts each token goes to.")
    score: Literal["sigmoid", "softmax", "sqrt_softplus"] | None = Field(
        None, description="What a learned gate weighs the chosen by; null weighs them alike."
    )
    scale: float = Field(1.0, gt=0, description="Factor on the weights.")
    seed: int = Field(0, ge=0, lt=2**63, description="What the table is drawn from, besides the layer.")

    def derive(self, n_experts: int) -> dict[str, Any]:
        check_experts_per_token(self.experts_per_token, n_experts)
        if self.experts_per_token == 1 and self.score is not None:
            raise ConfigProblem(
                "score", "the weight of a single expert is always 1, so the gate would learn nothing", "leave score out"
            )
        return {}


class Hash(Router):
    """Nothing to learn, nothing to balance."""

    Config = HashConfig
    paper = "Roller et al. 2021, arXiv:2106.04426"
    table: Tensor  # (V, k)

    def __init__(self, config: HashConfig, dim: int, n_experts: int, vocab_size: int, layer: int) -> None:
        super().__init__()
        self.config, self.n_experts = config, n_experts
        self.linear = RouterLinear(dim, n_experts) if config.score is not None else None
        drawn = _draw_table(vocab_size, n_experts, config.experts_per_token, config.seed + layer)
        table = torch.empty(vocab_size, config.experts_per_token, dtype=torch.int64)  # on the default device
        self.register_buffer("table", table.copy_(drawn))

    @property
    def experts_per_token(self) -> int:
        return self.config.experts_per_token

    @property
    def weight_sum(self) -> float:
        return self.config.scale

    def forward(self, x: Tensor, context: Context) -> Routing:
        indices = self.table[context.token_ids.flatten()]  # (N, k)
        if self.linear is None:
            nowhere = x.new_full((x.shape[0], self.n_experts), -torch.inf, dtype=torch.float32)
            logits = nowhere.scatter(-1, indices, 0.0)  # a softmax of them is the decision
            weights = torch.ones_like(indices, dtype=torch.float32) * (self.config.scale / self.experts_per_token)
            return Routing(logits, logits, weights, indices)
        assert self.config.score is not None
        logits = self.linear(x)
        scores = SCORES[self.config.score](logits)
        weights = scores.gather(-1, indices)
        weights = weights / weights.sum(-1, keepdim=True).clamp(min=1e-20) * self.config.scale
        return Routing(logits, scores, weights, indices)


def _draw_table(vocab_size: int, n_experts: int, k: int, seed: int) -> Tensor:
    """(V, k): the ids in random order are dealt to the experts in turn. Further choices are the experts some distances
    on, the same for all ids of a round, so that they are as even."""
    generator = torch.Generator().manual_seed(seed)
    dealt = torch.randperm(vocab_size, generator=generator, device="cpu").unsqueeze(1)
    distances = 1 + torch.randperm(n_experts - 1, generator=generator, device="cpu")
    rounds = dealt // n_experts + torch.arange(k - 1, device="cpu")  # (V, k - 1)
    further = distances[rounds % max(1, n_experts - 1)]
    return torch.cat([dealt, dealt + further], 1) % n_experts


@hookimpl
def register_components(register: Register) -> None:
    register("hash", Hash)
