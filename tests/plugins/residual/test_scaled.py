"""The scaled residual."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from lamina.plugins.residual.scaled import Scaled, ScaledConfig


def test_the_factor_multiplies_what_the_sublayer_adds() -> None:
    x = torch.randn(2, 3, 4)
    for learned in (False, True):
        assert_close(Scaled(ScaledConfig(factor=0.25, learned=learned))(x, lambda h: 2 * h), 1.5 * x)


def test_only_a_learned_factor_is_a_parameter_and_gets_a_gradient() -> None:
    assert not list(Scaled(ScaledConfig(factor=0.25)).parameters())
    residual, x = Scaled(ScaledConfig(factor=0.0, learned=True)), torch.randn(2, 3, 4)
    residual(x, lambda h: 2 * h).sum().backward()
    (factor,) = residual.parameters()
    assert_close(factor.grad, 2 * x.sum())


def test_half_precision_stays_half() -> None:
    x = torch.randn(2, 4, dtype=torch.bfloat16)
    assert Scaled(ScaledConfig(factor=0.5, learned=True))(x, lambda h: h).dtype == torch.bfloat16


@pytest.mark.parametrize("learned", [False, True])
def test_the_stream_has_a_factor_too(learned: bool) -> None:
    x = torch.randn(2, 3, 4)
    residual = Scaled(ScaledConfig(factor=0.5, stream_factor=3.0, learned=learned))
    assert_close(residual(x, lambda h: h**2), 3.0 * x + 0.5 * x**2)
