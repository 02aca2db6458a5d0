"""ReZero."""

from __future__ import annotations

import torch
from torch import nn
from torch.testing import assert_close

from lamina.plugins.residual.rezero import ReZero


def test_a_new_rezero_is_the_identity_and_learns_at_once() -> None:
    residual, x = ReZero(), torch.randn(2, 3, 4)
    out = residual(x, lambda h: 2 * h)
    assert_close(out, x)
    out.sum().backward()
    assert_close(residual.alpha.grad, 2 * x.sum())


def test_alpha_weighs_what_the_sublayer_adds() -> None:
    residual, x = ReZero(), torch.randn(2, 3, 4)
    nn.init.constant_(residual.alpha, 0.3)
    assert_close(residual(x, lambda h: h**2), x + 0.3 * x**2)


def test_half_precision_stays_half() -> None:
    assert ReZero()(torch.randn(2, 4, dtype=torch.bfloat16), lambda h: h).dtype == torch.bfloat16
