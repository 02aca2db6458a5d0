"""LayerNorm against torch's module and its formula."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lamina.core import ConfigProblem
from lamina.plugins.norm.layer import LayerNorm, LayerNormConfig


@pytest.mark.parametrize(("affine", "bias"), [(True, True), (True, False), (False, False)])
def test_layer_equals_torch(affine: bool, bias: bool) -> None:
    norm = LayerNorm(LayerNormConfig(affine=affine, bias=bias, eps=1e-3), 8)
    reference = nn.LayerNorm(8, eps=1e-3, elementwise_affine=affine, bias=bias)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    reference.load_state_dict(norm.state_dict())
    x = torch.randn(2, 3, 8)
    assert_close(norm(x), reference(x))


def test_a_new_norm_centres_and_scales() -> None:
    out = LayerNorm(LayerNormConfig(affine=True, bias=True), 64)(torch.randn(5, 64) * 3 + 2)
    assert_close(out.mean(-1), torch.zeros(5), atol=1e-5, rtol=0)
    assert_close(out.var(-1, correction=0), torch.ones(5), atol=1e-4, rtol=0)


@pytest.mark.parametrize("affine", [True, False])
def test_bias_follows_affine_unless_given(affine: bool) -> None:
    assert LayerNormConfig(affine=affine).derive() == {"bias": affine}
    assert LayerNormConfig(bias=False).derive() == {}


def test_a_bias_without_a_weight_is_refused() -> None:
    with pytest.raises(ConfigProblem, match="no place for a bias"):
        LayerNormConfig(affine=False, bias=True).derive()


def test_half_precision_stays_half() -> None:
    norm = LayerNorm(LayerNormConfig(bias=True), 8)
    assert norm(torch.randn(2, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16
