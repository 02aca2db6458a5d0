"""Expert choice: S = softmax(W·x) over experts, and every expert takes the C = ⌈N·k / E⌉ tokens with the largest S_e.

Zhou et al. 2022, arXiv:2202.09368. The load is even by construction, and a token gets as many experts as want it, k on
average. Weights are the S. But which experts take a token depends on all tokens of the batch, later ones too: a decoder
trained so sees what it has to predict, and decoding token by token gives other results than one whole pass. It is
therefore refused unless `allow_non_causal` says that this is known.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from lamina.core import (
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


class ExpertChoiceConfig(ComponentConfig):
    experts_per_token: int = Field(2, gt=0, description="How many experts take a token, on average.")
    allow_non_causal: bool = Field(False, description="Accept that the choice looks at later tokens and other rows.")

    def derive(self, n_experts: int) -> dict[str, Any]:
        check_experts_per_token(self.experts_per_token, n_experts)
        if not self.allow_non_causal:
            raise ConfigProblem(
                "allow_non_causal",
                "expert choice ranks each token against later ones, so a decoder trained with it sees what it has to "
                "predict, and generates otherwise than it was trained",
                "use a router that looks at one token at a time, or set allow_non_causal: true for a study of it",
            )
        return {}


class ExpertChoice(Router):
    """Experts choose tokens instead of tokens choosing experts."""

    Config = ExpertChoiceConfig
    paper = "Zhou et al. 2022, arXiv:2202.09368"
    tokenwise: ClassVar[bool] = False

    def __init__(self, config: ExpertChoiceConfig, dim: int, n_experts: int) -> None:
        super().__init__()
        self.config = config
        self.linear = RouterLinear(dim, n_experts)

    @property
    def experts_per_token(self) -> int:
        return self.config.experts_per_token

    def forward(self, x: Tensor, context: Context) -> Routing:
        logits = self.linear(x)
        scores = logits.softmax(-1)  # (N, E)
        n, n_experts = scores.shape
        capacity = -(-n * self.experts_per_token // n_experts)  # at most N, as k is at most E
        taken = torch.zeros_like(scores, dtype=torch.bool)
        taken = taken.scatter(0, scores.topk(capacity, 0).indices, True)
        kept, experts = taken.sort(dim=-1, descending=True, stable=True)  # (N, E): a token's own experts first
        most = self.experts_per_token if scores.is_meta else max(1, int(kept.sum(-1).amax())) if n else 1
        indices, kept = experts[:, :most], kept[:, :most]
        return Routing(logits, scores, scores.gather(-1, indices), indices, kept=kept)


@hookimpl
def register_components(register: Register) -> None:
    register("expert_choice", ExpertChoice)
