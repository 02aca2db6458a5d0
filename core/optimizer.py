"""The optimizer and schedule kinds. Imports no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from lamina.core.component import Component

if TYPE_CHECKING:
    import torch
    from torch import nn


class Optimizer(Component, ABC):
    """Makes the torch optimizer for a decoder's parameters."""

    kind = "optimizer"

    @abstractmethod
    def make(self, parameters: Iterable[tuple[str, nn.Parameter]], learning_rate: float) -> torch.optim.Optimizer:
        """An optimizer over the named parameters. The trainer sets each group's `lr` before every step to
        `group["base_lr"]`, where the group has one, or else the run's learning rate, times the schedule's factor."""


def decay_groups(parameters: Iterable[tuple[str, nn.Parameter]], weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups with weight decay on matrices alone: gains and biases have no size that should shrink."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for _, parameter in parameters:
        (matrices if parameter.ndim >= 2 else others).append(parameter)
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def hidden_matrices(
    parameters: Iterable[tuple[str, nn.Parameter]],
) -> tuple[list[tuple[str, nn.Parameter]], list[tuple[str, nn.Parameter]]]:
    """(the matrices inside the layers, everything else): the former map activations to activations.

    A hidden matrix has two axes and a name below `layers.`. Embeddings, position tables and the head stand outside the
    layers; gains, biases and convolution kernels have one or three axes.
    """
    hidden: list[tuple[str, nn.Parameter]] = []
    others: list[tuple[str, nn.Parameter]] = []
    for name, parameter in parameters:
        (hidden if parameter.ndim == 2 and name.startswith("layers.") else others).append((name, parameter))
    return hidden, others


class Schedule(Component, ABC):
    """The learning rate over a run, as a factor of its highest value."""

    kind = "schedule"

    @abstractmethod
    def factor(self, step: int, n_steps: int) -> float:
        """For step 0 … n_steps - 1, a number from 0 to 1"""


def warm_up(step: int, warmup_steps: int) -> float:
    """Linear from 1 / warmup_steps at step 0, so that no step is wasted on a rate of zero, to 1."""
    return min(1.0, (step + 1) / max(1, warmup_steps))
