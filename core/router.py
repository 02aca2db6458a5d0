"""The router kind: which experts see which token, and with what weight."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from lamina.core.component import ComponentConfig
from lamina.core.context import Context
from lamina.core.errors import ConfigProblem
from lamina.core.module import Linear, ModuleComponent


@dataclass
class Routing:
    """A router's decision for N tokens, E experts, k choices a token.

    Selection and combination are separate fields because they may differ (a bias may serve selection alone).
    """

    logits: Tensor  # (N, E) raw router outputs
    scores: Tensor  # (N, E) what selection ranked
    weights: Tensor  # (N, k) what each chosen expert's output is multiplied by
    indices: Tensor  # (N, k) int64, the chosen experts
    losses: dict[str, Tensor] = field(default_factory=dict)  # scalars to add to the training loss, already weighted

    def load(self) -> Tensor:
        """(E,) int64: how many of the N·k choices fell on each expert."""
        chosen = self.indices.flatten()
        # Not bincount, which makes an accelerator wait and does not run on the meta device.
        counts = torch.zeros(self.logits.shape[-1], dtype=torch.int64, device=chosen.device)
        return counts.scatter_add_(0, chosen, torch.ones_like(chosen))


class TopKConfig(ComponentConfig):
    """The options of every router that gives each token its k best experts."""

    experts_per_token: int = Field(2, gt=0, description="How many experts each token goes to.")
    renormalise: bool = Field(True, description="Whether the chosen experts' weights are scaled to sum to one.")

    def derive(self, n_experts: int) -> dict[str, Any]:
        k = self.experts_per_token
        if k > n_experts:
            raise ConfigProblem(
                "experts_per_token",
                f"experts_per_token ({k}) must be at most n_experts ({n_experts})",
                f"use {n_experts} or fewer, or more experts",
            )
        if k == 1 and self.renormalise:
            raise ConfigProblem(
                "renormalise",
                "with one expert a token a renormalised weight is always 1, so the router would learn nothing",
                "set renormalise: false",
            )
        return {}


class RouterLinear(Linear):
    """Router logits, in float32 whatever the model's precision: bfloat16 rounds close experts onto each other."""

    def __init__(self, dim: int, n_experts: int) -> None:
        super().__init__(dim, n_experts, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, D) -> (N, E) float32"""
        device = x.device.type if torch.amp.is_autocast_available(x.device.type) else "cpu"  # the meta device has none
        with torch.autocast(device, enabled=False):
            return F.linear(x.float(), self.weight.float())


class Router(ModuleComponent, ABC):
    """Chooses experts. Built as `cls(config, dim, n_experts)`."""

    kind = "router"
    told = ("dim", "n_experts", "layer", "n_layers", "vocab_size")

    @property
    @abstractmethod
    def experts_per_token(self) -> int:
        """k"""

    @abstractmethod
    def forward(self, x: Tensor, context: Context) -> Routing:
        """(N, D) -> Routing. Losses are filled in training mode only."""

    if TYPE_CHECKING:
        __call__ = forward
