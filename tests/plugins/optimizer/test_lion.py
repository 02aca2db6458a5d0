from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.testing import assert_close

from lamina.plugins.optimizer.lion import Lion, LionConfig

Stepped = Callable[[nn.Module, torch.optim.Optimizer], list[torch.Tensor]]


def by_the_paper(model: nn.Module, lr: float, beta1: float, beta2: float, decay: float) -> list[torch.Tensor]:
    """Algorithm 2 of the paper, one number at a time, on the gradients the fixture's steps give."""
    means = {p: [0.0] * p.numel() for p in model.parameters()}
    generator = torch.Generator().manual_seed(1)
    for _ in range(4):
        model.zero_grad()
        model(torch.randn(5, 4, generator=generator)).square().sum().backward()
        for p, mean in means.items():
            assert p.grad is not None
            weights, gradients = p.detach().flatten().tolist(), p.grad.flatten().tolist()
            for i, (w, g) in enumerate(zip(weights, gradients, strict=True)):
                c = beta1 * mean[i] + (1 - beta1) * g
                sign = (c > 0) - (c < 0)
                weights[i] = w - lr * (sign + (decay if p.ndim == 2 else 0.0) * w)
                mean[i] = beta2 * mean[i] + (1 - beta2) * g
            with torch.no_grad():
                p.copy_(torch.tensor(weights).view_as(p))
    return list(model.parameters())


def test_steps_are_those_of_the_paper_with_decay_on_matrices_alone(
    twins: tuple[nn.Module, nn.Module], stepped: Stepped
) -> None:
    ours, theirs = twins
    optimizer = Lion(LionConfig(betas=[0.8, 0.95], weight_decay=0.5)).make(ours.named_parameters(), 0.01)
    for a, b in zip(stepped(ours, optimizer), by_the_paper(theirs, 0.01, 0.8, 0.95, 0.5), strict=True):
        assert_close(a, b)


def test_a_parameter_without_a_gradient_stays() -> None:
    used, idle = nn.Linear(2, 2), nn.Linear(2, 2)
    before = idle.weight.clone()
    named = [*used.named_parameters("used"), *idle.named_parameters("idle")]
    optimizer = Lion(LionConfig()).make(named, 0.1)
    used(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert torch.equal(idle.weight, before)
    assert idle.weight not in optimizer.state
