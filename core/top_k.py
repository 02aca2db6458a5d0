"""What routers share that give each token its best experts: options, scores, groups, weights, losses."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, distributed
from torch.nn import functional as F

from lamina.core.component import ComponentConfig
from lamina.core.context import Context
from lamina.core.errors import ConfigProblem
from lamina.core.router import Router, RouterLinear, Routing

# (N, E) logits -> (N, E) how well each expert suits each token
SCORES: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda logits: logits.softmax(-1),
    "sigmoid": torch.sigmoid,
    "sqrt_softplus": lambda logits: F.softplus(logits).sqrt(),
}


class TopKConfig(ComponentConfig):
    """The options of every router that gives each token its k best experts."""

    experts_per_token: int = Field(2, gt=0, description="How many experts each token goes to.")
    renormalise: bool = Field(True, description="Whether the chosen experts' weights are scaled to sum to one.")

    def derive(self, n_experts: int) -> dict[str, Any]:
        check_experts_per_token(self.experts_per_token, n_experts)
        if self.experts_per_token == 1 and self.renormalise:
            raise ConfigProblem(
                "renormalise",
                "with one expert a token a renormalised weight is always 1, so the router would learn nothing",
                "set renormalise: false",
            )
        return {}


def check_experts_per_token(k: int, n_experts: int) -> None:
    if k > n_experts:
        raise ConfigProblem(
            "experts_per_token",
            f"experts_per_token ({k}) must be at most n_experts ({n_experts})",
            f"use {n_experts} or fewer, or more experts",
        )


class GroupedTopKConfig(TopKConfig):
    """The same, where a token may be held to the experts of a few groups. DeepSeek-V2, arXiv:2405.04434, does so to
    reach few devices."""

    norm_order: float = Field(
        1.0,
        gt=0,
        description="Which norm of the chosen weights renormalising makes one: 1 their sum, 2 their length (DBRX).",
    )
    scale: float = Field(1.0, gt=0, description="Factor on the weights; DeepSeek-V3 uses 2.5.")
    n_groups: int = Field(1, gt=0, description="Experts stand in this many groups of equal size.")
    groups_per_token: int | None = Field(None, gt=0, description="From how many groups a token's experts may come.")
    group_score: Literal["max", "top2_sum"] | None = Field(
        None,
        description="What ranks a group: its best score (DeepSeek-V2), or the sum of its two best (DeepSeek-V3). "
        "When left out, the second where a bias takes part in choosing.",
    )
    usual_group_score: ClassVar[str] = "max"

    @property
    def weight_sum(self) -> float | None:
        """What the weights of a token add up to; None where they are left as they are."""
        return self.scale if self.renormalise and self.norm_order == 1.0 else None

    def derive(self, n_experts: int) -> dict[str, Any]:
        found = super().derive(n_experts)
        if self.norm_order != 1.0 and not self.renormalise:
            raise ConfigProblem("norm_order", "norm_order says nothing without renormalise", "remove one of them")
        if self.n_groups == 1:
            for name in ("groups_per_token", "group_score"):
                if getattr(self, name) is not None:
                    raise ConfigProblem(
                        name, f"{name} says nothing where n_groups is 1", "set n_groups, or leave it out"
                    )
            return found
        if n_experts % self.n_groups:
            raise ConfigProblem(
                "n_groups",
                f"n_experts ({n_experts}) must be a multiple of n_groups ({self.n_groups})",
                "change one of them",
            )
        size, groups = n_experts // self.n_groups, self.groups_per_token
        if groups is None or groups > self.n_groups:
            raise ConfigProblem(
                "groups_per_token" if groups is not None else "n_groups",
                f"groups_per_token must be given, from 1 to n_groups ({self.n_groups})",
                "set groups_per_token",
            )
        if groups * size < self.experts_per_token:
            raise ConfigProblem(
                "groups_per_token",
                f"{groups} of the groups hold {groups * size} experts, fewer than experts_per_token "
                f"({self.experts_per_token})",
                "allow more groups",
            )
        if size == 1 and (self.group_score or self.usual_group_score) == "top2_sum":
            raise ConfigProblem(
                "group_score" if self.group_score else "n_groups",
                "a group of one expert has no two best",
                "use fewer groups, or group_score: max",
            )
        return found if self.group_score else {**found, "group_score": self.usual_group_score}


def best_experts(scores: Tensor, config: GroupedTopKConfig) -> Tensor:
    """(N, E) -> (N, k) int64: the k largest scores among those of the best groups."""
    if config.n_groups > 1:
        assert config.groups_per_token is not None  # derived
        grouped = scores.view(-1, config.n_groups, scores.shape[-1] // config.n_groups)  # (N, G, E / G)
        ranks = grouped.amax(-1) if config.group_score == "max" else grouped.topk(2, -1).values.sum(-1)
        open_groups = torch.zeros_like(ranks, dtype=torch.bool)
        open_groups = open_groups.scatter(-1, ranks.topk(config.groups_per_token, -1).indices, True)
        scores = grouped.masked_fill(~open_groups.unsqueeze(-1), -torch.inf).flatten(-2)
    return scores.topk(config.experts_per_token, -1).indices


def weights_of(affinities: Tensor, indices: Tensor, config: GroupedTopKConfig, eps: float = 1e-20) -> Tensor:
    """(N, E), (N, k) -> (N, k): the chosen affinities, none negative, scaled to a norm of one if so asked, times the
    scale."""
    weights = affinities.gather(-1, indices)
    if config.renormalise:
        weights = weights / torch.linalg.vector_norm(weights, config.norm_order, -1, keepdim=True).clamp(min=eps)
    return weights if config.scale == 1.0 else weights * config.scale


class RouterLossConfig(ComponentConfig):
    """Losses that keep a softmax router healthy in training.

    balance  E · Σ_e f_e · P_e, f_e the fraction of all N·k choices that fell on expert e, P_e its mean probability.
             Switch Transformer (Fedus et al. 2021, arXiv:2101.03961) for any k; 1 when the load is even, more when not.
    z        mean of logsumexp(logits)², which keeps logits small. ST-MoE (Zoph et al. 2022, arXiv:2202.08906).
    """

    balance_loss: float = Field(0.0, ge=0, description="Weight of the load-balance loss; 0.01 is usual, 0 is none.")
    z_loss: float = Field(0.0, ge=0, description="Weight of the z loss; 0.001 is usual, 0 is none.")


BALANCED_LOSS = 1.0  # the balance loss, before its weight, of a perfectly even load


def router_losses(routing: Routing, config: RouterLossConfig, shares: Tensor | None = None) -> dict[str, Tensor]:
    """Those of the losses that have a weight. `shares` (N, E) are what P_e is the mean of; softmax(logits) when left
    out."""
    losses, logits = {}, routing.logits
    if config.balance_loss:
        fractions = routing.load() / routing.indices.numel()  # (E,)
        shares = logits.softmax(-1) if shares is None else shares
        even = logits.shape[-1] * (fractions * shares.mean(0)).sum()
        losses["router_balance"] = config.balance_loss * even
    if config.z_loss:
        losses["router_z"] = config.z_loss * logits.logsumexp(-1).square().mean()
    return losses


def jitter(x: Tensor, amount: float) -> Tensor:
    """x times noise drawn evenly from 1 - amount to 1 + amount."""
    return x * torch.empty_like(x).uniform_(1.0 - amount, 1.0 + amount)


class ScoredTopKConfig(GroupedTopKConfig, RouterLossConfig):
    """The options of a router whose load is evened by a loss."""

    jitter: float = Field(0.0, ge=0, lt=1, description="Noise on the router's input in training, up to this share.")


class ScoredTopK(Router, ABC):
    """The k largest of score(W·x) are chosen and weighed by it. A subclass says which of SCORES."""

    Config = ScoredTopKConfig
    balanced_loss: ClassVar[float] = BALANCED_LOSS  # before its weight, of a perfectly even load
    score: ClassVar[str]

    def __init__(self, config: ScoredTopKConfig, dim: int, n_experts: int) -> None:
        super().__init__()
        self.config = config
        self.linear = RouterLinear(dim, n_experts)

    @property
    def experts_per_token(self) -> int:
        return self.config.experts_per_token

    @property
    def weight_sum(self) -> float | None:
        return self.config.weight_sum

    def forward(self, x: Tensor, context: Context) -> Routing:
        if self.training and self.config.jitter:
            x = jitter(x, self.config.jitter)
        logits = self.linear(x)
        affinities = SCORES[self.score](logits)  # (N, E)
        indices = best_experts(affinities, self.config)  # (N, k)
        routing = Routing(logits, affinities, weights_of(affinities, indices, self.config), indices)
        if self.training:
            shares = affinities / affinities.sum(-1, keepdim=True)
            routing.losses = router_losses(routing, self.config, shares)
        return routing


class BiasedTopKConfig(GroupedTopKConfig):
    """The options of a router whose load is evened by a bias."""

    bias_update_rate: float = Field(0.001, ge=0, description="How far the bias moves in a step; 0 freezes it.")
    eps: float = Field(1e-20, gt=0, description="The least sum of weights that renormalising divides by.")
    usual_group_score: ClassVar[str] = "top2_sum"


class BiasedTopK(Router, ABC):
    """The k largest of score(W·x) + b are chosen and weighed by score(W·x); b evens the load and no loss has to.

    After each step b moves by a fixed rate up for experts that got less than the mean load and down for those that got
    more (Wang et al. 2024, arXiv:2408.15664). A subclass says which of SCORES.
    """

    Config = BiasedTopKConfig
    score: ClassVar[str]
    bias: Tensor  # (E,)

    def __init__(self, config: BiasedTopKConfig, dim: int, n_experts: int) -> None:
        super().__init__()
        self.config = config
        self.linear = RouterLinear(dim, n_experts)
        # float32 also in a bfloat16 model, where a step of 0.001 would round away.
        self.register_buffer("bias", torch.zeros(n_experts, dtype=torch.float32))
        self._load: Tensor | None = None  # (E,) int64, choices since the last step

    def init_weights(self, std: float) -> None:
        self.bias.zero_()

    @property
    def experts_per_token(self) -> int:
        return self.config.experts_per_token

    @property
    def weight_sum(self) -> float | None:
        return self.config.weight_sum

    def forward(self, x: Tensor, context: Context) -> Routing:
        logits = self.linear(x)
        affinities = SCORES[self.score](logits)
        scores = affinities + self.bias  # (N, E)
        indices = best_experts(scores, self.config)  # (N, k)
        routing = Routing(logits, scores, weights_of(affinities, indices, self.config, self.config.eps), indices)
        if self.training and not context.again:
            load = routing.load()
            self._load = load if self._load is None else self._load + load
        return routing

    def after_step(self) -> None:
        if self._load is None:
            return
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(self._load)  # every process must move its bias alike
        load = self._load.float()
        self.bias += self.config.bias_update_rate * torch.sign(load.mean() - load)
        self._load = None
