"""Stochastic gradient descent with momentum: m ← μm + g + weight_decay · w,  w ← w - lr · m.

Robbins & Monro 1951; momentum: Polyak 1964.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pydantic import Field

from lamina.core import ComponentConfig, Optimizer, Register, decay_groups, hookimpl

if TYPE_CHECKING:
    import torch
    from torch import nn


class SGDConfig(ComponentConfig):
    momentum: float = Field(0.9, ge=0, lt=1, description="Share of the last update kept in the next.")
    weight_decay: float = Field(0.0, ge=0, description="Pull of matrices towards zero, times the learning rate.")


class SGD(Optimizer):
    """torch's SGD. Gains and biases are not decayed."""

    Config = SGDConfig
    paper = "Robbins & Monro 1951; Polyak 1964"

    def __init__(self, config: SGDConfig) -> None:
        self.config = config

    def make(self, parameters: Iterable[tuple[str, nn.Parameter]], learning_rate: float) -> torch.optim.Optimizer:
        import torch  # here, so that the plugin lists without it

        groups = decay_groups(parameters, self.config.weight_decay)
        return torch.optim.SGD(groups, lr=learning_rate, momentum=self.config.momentum)


@hookimpl
def register_components(register: Register) -> None:
    register("sgd", SGD)
