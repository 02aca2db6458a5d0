from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.testing import assert_close

from lamina.plugins.optimizer.adamw import AdamW, AdamWConfig

Stepped = Callable[[nn.Module, torch.optim.Optimizer], list[torch.Tensor]]


def test_steps_are_those_of_torchs_adamw_with_decay_on_matrices_alone(
    twins: tuple[nn.Module, nn.Module], stepped: Stepped
) -> None:
    ours, theirs = twins
    optimizer = AdamW(AdamWConfig(betas=[0.8, 0.9], eps=1e-5, weight_decay=0.5)).make(ours.named_parameters(), 0.01)
    matrices = [theirs[0].weight, theirs[2].weight]
    others = [theirs[0].bias, theirs[1].weight, theirs[1].bias, theirs[2].bias]
    reference = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.5}, {"params": others, "weight_decay": 0.0}],
        lr=0.01, betas=(0.8, 0.9), eps=1e-5,
    )  # fmt: skip
    for a, b in zip(stepped(ours, optimizer), stepped(theirs, reference), strict=True):
        assert_close(a, b)


def test_on_the_cpu_the_update_is_fused() -> None:
    optimizer = AdamW(AdamWConfig()).make(nn.Linear(2, 2).named_parameters(), 0.01)
    assert all(group["fused"] for group in optimizer.param_groups)


def test_where_no_fused_kernel_exists_the_plain_one_is_used() -> None:
    optimizer = AdamW(AdamWConfig()).make(nn.Linear(2, 2, device="meta").named_parameters(), 0.01)
    assert not any(group["fused"] for group in optimizer.param_groups)


def test_a_model_without_gains_or_biases_has_one_group() -> None:
    optimizer = AdamW(AdamWConfig()).make(nn.Linear(2, 2, bias=False).named_parameters(), 0.01)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1]


@pytest.mark.parametrize("betas", [[0.9], [0.9, 1.0], ["0.9", 0.95], 0.9])
def test_betas_must_be_two_numbers_below_one(betas: object) -> None:
    with pytest.raises(ValidationError):
        AdamWConfig(betas=betas)
