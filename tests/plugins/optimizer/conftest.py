"""A model with matrices, gains and biases, and steps taken with it."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn


def take_steps(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(4):
        optimizer.zero_grad()
        model(torch.randn(5, 4, generator=generator)).square().sum().backward()
        optimizer.step()
    return list(model.parameters())


@pytest.fixture
def twins() -> tuple[nn.Module, nn.Module]:
    model = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 2))
    return model, copy.deepcopy(model)


@pytest.fixture
def stepped() -> Callable[[nn.Module, torch.optim.Optimizer], list[torch.Tensor]]:
    return take_steps
