"""Low-rank adapters: y = W·x + b + (alpha / rank) · B·A·x with W and b frozen, A (rank, in) and B (out, rank) learned.

Hu et al. 2021, arXiv:2106.09685. A is drawn, B starts at zero, so an adapted decoder begins as the one it adapts.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from lamina.core.component import ComponentConfig
from lamina.core.errors import ConfigProblem
from lamina.core.module import Linear, OutLinear


class LoRAConfig(ComponentConfig):
    """The options of an adapter, whatever the kind of part it adapts."""

    rank: int = Field(8, gt=0, description="Inner width of the adapter.")
    alpha: float | None = Field(
        None, gt=0, description="The adapter's output is scaled by alpha / rank. Default: rank."
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on what the adapter reads, in training.")
    targets: list[str] | None = Field(
        None, min_length=1, description="Names of the projections to adapt, such as qkv; null for every one."
    )

    def derive(self) -> dict[str, Any]:
        return {"alpha": float(self.rank)} if self.alpha is None else {}


class AdaptedLinear(Linear):
    """A projection with an adapter; `weight` and `bias` keep their names and are frozen."""

    def __init__(self, base: Linear, config: LoRAConfig) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight.requires_grad_(False), base.bias
        if self.bias is not None:
            self.bias.requires_grad_(False)
        self.lora_a = nn.Parameter(torch.empty(config.rank, base.in_features))
        self.lora_b = nn.Parameter(torch.zeros(base.out_features, config.rank))
        assert config.alpha is not None, "set by derive"
        self.scale = config.alpha / config.rank
        self.dropout = config.dropout

    def start(self) -> None:
        """A normal with deviation 1 / sqrt(in), B zero."""
        nn.init.normal_(self.lora_a, std=1 / math.sqrt(self.in_features))
        nn.init.zeros_(self.lora_b)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)"""
        low = F.linear(F.dropout(x, self.dropout, self.training), self.lora_a)
        return super().forward(x) + F.linear(low, self.lora_b) * self.scale


class AdaptedOutLinear(AdaptedLinear, OutLinear):
    """The same for a projection that writes into the residual stream."""


_ADAPTED = {Linear: AdaptedLinear, OutLinear: AdaptedOutLinear}  # not their subclasses, which may do otherwise


def adapt(module: nn.Module, config: LoRAConfig) -> list[AdaptedLinear]:
    """Give the projections inside `module` adapters, in place, and freeze the rest of it. Raises ConfigProblem."""
    module.requires_grad_(False)
    found = {name: layer for name, layer in module.named_modules() if type(layer) in _ADAPTED}
    short = sorted({name.rpartition(".")[2] for name in found})
    for target in config.targets or ():
        if target not in found and target not in short:
            raise ConfigProblem(
                "targets", f"no projection is called '{target}'", f"there are {', '.join(short) or 'none'}"
            )
    if not found:
        raise ConfigProblem("wraps", "the part has no projection that could be adapted")
    adapted = []
    for name, layer in found.items():
        above, _, last = name.rpartition(".")
        if config.targets is None or {name, last} & set(config.targets):
            assert isinstance(layer, Linear)
            made = _ADAPTED[type(layer)](layer, config)
            setattr(module.get_submodule(above), last, made)
            adapted.append(made)
    return adapted
