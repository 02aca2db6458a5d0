"""ScaleNorm against its formula."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lamina.plugins.norm.scale_norm import ScaleNorm, ScaleNormConfig


def test_scale_norm_follows_its_formula() -> None:
    norm, x = ScaleNorm(ScaleNormConfig(), 6), torch.randn(2, 3, 6)
    nn.init.constant_(norm.weight, 1.7)
    rows = [1.7 * row / sum(float(e) ** 2 for e in row) ** 0.5 for row in x.view(-1, 6)]
    assert_close(norm(x), torch.stack(rows).view_as(x))


def test_a_new_norm_gives_unit_root_mean_square() -> None:
    out = ScaleNorm(ScaleNormConfig(), 64)(torch.randn(5, 64) * 3)
    assert_close(out.square().mean(-1), torch.ones(5))


@pytest.mark.parametrize("eps", [1e-5, 0.1])
def test_a_vector_shorter_than_eps_is_divided_by_eps(eps: float) -> None:
    x = torch.tensor([[0.3 * eps, 0.0, 0.4 * eps, 0.0], [0.0] * 4])
    assert_close(ScaleNorm(ScaleNormConfig(eps=eps), 4)(x), 2 * x / eps)


def test_gradients_are_right() -> None:
    norm = ScaleNorm(ScaleNormConfig(), 5).double()
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    call = torch.func.functional_call
    assert torch.autograd.gradcheck(lambda x, weight: call(norm, {"weight": weight}, x), (x, norm.weight))


def test_half_precision_takes_its_length_in_float32() -> None:
    x = (torch.randn(4, 256) * 1e3).to(torch.bfloat16)
    norm = ScaleNorm(ScaleNormConfig(), 256).to(torch.bfloat16)
    assert norm(x).dtype == torch.bfloat16
    assert_close(
        norm(x), (16 * x.double() / x.double().norm(dim=-1, keepdim=True)).to(torch.bfloat16), rtol=1e-2, atol=0
    )
