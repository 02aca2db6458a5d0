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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_offset_form_equals_nemotron(dtype: torch.dtype) -> None:
    modeling = pytest.importorskip("transformers.models.nemotron.modeling_nemotron")
    norm, theirs = LayerNorm(LayerNormConfig(offset=1.0, bias=True), 16), modeling.NemotronLayerNorm1P(16)
    for parameter in norm.parameters():
        nn.init.normal_(parameter, std=0.5)
    theirs.load_state_dict(norm.state_dict())
    x = torch.randn(3, 16).to(dtype)
    tolerance = 1e-6 if dtype == torch.float32 else 0.02  # theirs rounds 1 + weight
    assert_close(norm.to(dtype)(x), theirs.to(dtype)(x), atol=tolerance, rtol=tolerance)


def test_a_new_norm_scales_by_one_whatever_the_offset() -> None:
    x = torch.randn(4, 8)
    plain = LayerNorm(LayerNormConfig(bias=True), 8)(x)
    assert_close(LayerNorm(LayerNormConfig(bias=True, offset=1.0), 8)(x), plain)


def test_an_offset_without_a_weight_is_refused() -> None:
    with pytest.raises(ConfigProblem, match="affine: false has none"):
        LayerNormConfig(affine=False, offset=1.0).derive()
