from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lamina.plugins.optimizer.sgd import SGD, SGDConfig

Stepped = Callable[[nn.Module, torch.optim.Optimizer], list[torch.Tensor]]


@pytest.mark.parametrize("momentum", [0.0, 0.7])
def test_steps_are_those_of_torchs_sgd_with_decay_on_matrices_alone(
    momentum: float, twins: tuple[nn.Module, nn.Module], stepped: Stepped
) -> None:
    ours, theirs = twins
    optimizer = SGD(SGDConfig(momentum=momentum, weight_decay=0.5)).make(ours.named_parameters(), 0.01)
    matrices = [theirs[0].weight, theirs[2].weight]
    others = [theirs[0].bias, theirs[1].weight, theirs[1].bias, theirs[2].bias]
    reference = torch.optim.SGD(
        [{"params": matrices, "weight_decay": 0.5}, {"params": others}], lr=0.01, momentum=momentum
    )
    for a, b in zip(stepped(ours, optimizer), stepped(theirs, reference), strict=True):
        assert_close(a, b)
