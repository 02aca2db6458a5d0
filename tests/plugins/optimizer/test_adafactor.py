from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lamina.plugins.optimizer.adafactor import Adafactor, AdafactorConfig

Stepped = Callable[[nn.Module, torch.optim.Optimizer], list[torch.Tensor]]


def rms(x: torch.Tensor) -> torch.Tensor:
    return x.square().mean().sqrt()


def by_the_paper(
    model: nn.Module, lr: float, decay: float, eps: float, clip: float, weight_decay: float
) -> list[torch.Tensor]:
    """Algorithms 4 and 5 of the paper with decoupled weight decay, on the gradients the fixture's steps give."""
    rows: dict[nn.Parameter, torch.Tensor] = {p: torch.zeros(p.shape[0], 1) for p in model.parameters()}
    columns = {p: torch.zeros(p.shape[-1]) for p in model.parameters()}
    generator = torch.Generator().manual_seed(1)
    for t in range(1, 5):
        model.zero_grad()
        model(torch.randn(5, 4, generator=generator)).square().sum().backward()
        kept = 1 - t**decay
        for p in model.parameters():
            assert p.grad is not None
            square = p.grad.square()
            with torch.no_grad():
                step = max(eps, rms(p).item()) * min(lr, t**-0.5)
                columns[p] = kept * columns[p] + (1 - kept) * (square.mean(0) if p.ndim == 2 else square)
                second = columns[p]
                if p.ndim == 2:
                    rows[p] = kept * rows[p] + (1 - kept) * square.mean(1, keepdim=True)
                    second = rows[p] * columns[p] / rows[p].mean()
                    p.mul_(1 - lr * weight_decay)
                update = p.grad / second.sqrt()
                p.sub_(step * update / max(1.0, rms(update).item() / clip))
    return list(model.parameters())


def test_steps_are_those_of_the_paper_with_decay_on_matrices_alone(
    twins: tuple[nn.Module, nn.Module], stepped: Stepped
) -> None:
    ours, theirs = twins
    config = AdafactorConfig(decay=-0.7, eps=0.01, clip=1.1, weight_decay=0.5)
    optimizer = Adafactor(config).make(ours.named_parameters(), 0.02)
    for a, b in zip(stepped(ours, optimizer), by_the_paper(theirs, 0.02, -0.7, 0.01, 1.1, 0.5), strict=True):
        assert_close(a, b)


def test_a_matrix_takes_state_of_a_row_and_a_column(stepped: Stepped) -> None:
    model = nn.Sequential(nn.Linear(4, 64, bias=False))
    optimizer = Adafactor(AdafactorConfig()).make(model.named_parameters(), 0.01)
    stepped(model, optimizer)
    (state,) = optimizer.state.values()
    assert sum(value.numel() for value in state.values()) == 4 + 64 + 1


@pytest.mark.parametrize("size", [1.0, 1e-6])
def test_steps_do_not_depend_on_the_gradients_size_and_unseen_rows_stay(size: float) -> None:
    table = nn.Embedding(5, 3)
    before = table.weight.detach().clone()
    optimizer = Adafactor(AdafactorConfig()).make(table.named_parameters(), 0.01)
    (table(torch.tensor([1, 3])).sum() * size).backward()
    optimizer.step()
    moved = (table.weight - before).detach()
    step = rms(before) * 0.01
    assert_close(moved[[1, 3]], (-step).expand(2, 3))
    assert torch.equal(moved[[0, 2, 4]], torch.zeros(3, 3))
