"""The router kind: which experts see which token, and with what weight."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lamina.core.context import Context
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
    kept: Tensor | None = None  # (N, k) bool, the entries that are choices, where tokens have fewer than k; else all

    def load(self) -> Tensor:
        """(E,) int64: how many of the choices fell on each expert."""
        chosen = self.indices.flatten()
        ones = torch.ones_like(chosen) if self.kept is None else self.kept.flatten().to(chosen.dtype)
        # Not bincount, which makes an accelerator wait and does not run on the meta device.
        return torch.zeros(self.logits.shape[-1], dtype=torch.int64, device=chosen.device).scatter_add_(0, chosen, ones)

    def entropy(self) -> Tensor:
        """(N,) of softmax(logits), in nats: 0 when one expert is sure of a token, log E when all are equally likely."""
        return torch.special.entr(self.logits.softmax(-1)).sum(-1)  # type: ignore[no-any-return]


class RouterLinear(Linear):
    """Router logits, in float32 at least: bfloat16 rounds close experts onto each other."""

    def __init__(self, dim: int, n_experts: int, bias: bool = False) -> None:
        super().__init__(dim, n_experts, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, D) -> (N, E) float32, or float64 for such an input"""
        device = x.device.type if torch.amp.is_autocast_available(x.device.type) else "cpu"  # the meta device has none
        dtype = torch.promote_types(x.dtype, torch.float32)
        bias = None if self.bias is None else self.bias.to(dtype)
        with torch.autocast(device, enabled=False):
            return F.linear(x.to(dtype), self.weight.to(dtype), bias)


class Router(ModuleComponent, ABC):
    """Chooses experts. Built as `cls(config, dim, n_experts)`."""

    kind = "router"
    told = ("dim", "n_experts", "layer", "n_layers", "vocab_size")
    tokenwise: ClassVar[bool] = True  # a token's experts depend on that token alone; False for one that weighs tokens
    balanced_loss: ClassVar[float | None] = None  # the balance loss, before its weight, of a perfectly even load

    @property
    @abstractmethod
    def experts_per_token(self) -> int:
        """k, or the mean where it differs from token to token"""

    @property
    def weight_sum(self) -> float | None:
        """What the weights of a token add up to; None where that differs from token to token."""
        return None

    @abstractmethod
    def forward(self, x: Tensor, context: Context) -> Routing:
        """(N, D) -> Routing. Losses are filled in training mode only. Draws from torch's own generator, which training
        seeds before every step."""

    if TYPE_CHECKING:
        __call__ = forward
