"""Dynamic tanh against its formula."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lamina.plugins.norm.dyt import DyT, DyTConfig


@pytest.mark.parametrize("bias", [True, False])
def test_dyt_follows_its_formula(bias: bool) -> None:
    norm, x = DyT(DyTConfig(alpha=0.8, bias=bias), 4).double(), torch.randn(3, 4, dtype=torch.float64)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    alpha, weight = norm.alpha.item(), norm.weight.tolist()
    shift = [0.0] * 4 if norm.bias is None else norm.bias.tolist()
    rows = [[math.tanh(alpha * e) * w + b for e, w, b in zip(row, weight, shift, strict=True)] for row in x.tolist()]
    assert_close(norm(x), torch.tensor(rows, dtype=torch.float64))


@pytest.mark.parametrize("alpha", [0.5, 0.2])
def test_a_new_dyt_is_a_tanh(alpha: float) -> None:
    x = torch.randn(3, 4)
    assert_close(DyT(DyTConfig(alpha=alpha), 4)(x), torch.tanh(alpha * x))


def test_every_parameter_gets_a_gradient() -> None:
    norm = DyT(DyTConfig(), 4)
    norm(torch.randn(3, 4)).square().sum().backward()
    for name, parameter in norm.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_half_precision_stays_half() -> None:
    assert DyT(DyTConfig(), 8)(torch.randn(2, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16
