"""L2Norm against torch's own function and its formula."""

from __future__ import annotations

import torch
from torch.nn import functional as F
from torch.testing import assert_close

from lamina.plugins.norm.l2 import L2Norm, L2NormConfig


def test_l2_equals_torch_where_eps_does_not_count() -> None:
    x = torch.randn(2, 3, 8)
    assert_close(L2Norm(L2NormConfig(eps=1e-12))(x), F.normalize(x, dim=-1))


def test_eps_is_added_to_the_sum_of_squares() -> None:
    x = torch.tensor([[0.3, 0.0, 0.4]])
    assert_close(L2Norm(L2NormConfig(eps=0.11))(x), x / 0.6)


def test_half_precision_takes_its_sum_in_float32() -> None:
    x = (torch.randn(4, 256) * 1e3).to(torch.bfloat16)
    out = L2Norm(L2NormConfig())(x)
    assert out.dtype == torch.bfloat16
    assert_close(out, F.normalize(x.double(), dim=-1).to(torch.bfloat16), rtol=1e-2, atol=0)


def test_gradients_are_right_at_zero_too() -> None:
    x = torch.cat([torch.randn(3, 5), torch.zeros(1, 5)]).double().requires_grad_()
    assert torch.autograd.gradcheck(L2Norm(L2NormConfig(eps=0.5)), (x,))
