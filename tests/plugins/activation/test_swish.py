"""Swish against its formula, number by number, and its learned sharpness."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from lamina.plugins.activation.swish import Swish, SwishConfig


@pytest.mark.parametrize("learned", [True, False])
@pytest.mark.parametrize("beta", [1.0, 0.3, 4.0])
def test_swish_follows_its_formula(learned: bool, beta: float) -> None:
    x = torch.linspace(-4, 4, 33, dtype=torch.float64)
    expected = [z / (1 + math.exp(-beta * z)) for z in x.tolist()]
    swish = Swish(SwishConfig(beta=beta, learned=learned)).double()
    assert_close(swish(x), torch.tensor(expected, dtype=torch.float64), atol=1e-6, rtol=1e-6)


def test_only_a_learned_sharpness_is_a_parameter_and_gets_a_gradient() -> None:
    assert not list(Swish(SwishConfig(learned=False)).parameters())
    swish = Swish(SwishConfig())
    swish(torch.randn(10)).sum().backward()
    (beta,) = swish.parameters()
    assert beta.grad is not None
    assert beta.grad != 0


def test_half_precision_stays_half() -> None:
    assert Swish(SwishConfig())(torch.randn(4, dtype=torch.bfloat16)).dtype == torch.bfloat16
