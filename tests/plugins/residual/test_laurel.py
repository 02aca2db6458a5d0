"""LAuReL against the paper's formula and Gemma 3n's block."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lamina.core import Part
from lamina.plugins.norm.rms import RMSNorm, RMSNormConfig
from lamina.plugins.residual.laurel import Laurel, LaurelConfig

DIM = 8


def laurel(norms: bool = False, **options: Any) -> Laurel:
    made = [RMSNorm(RMSNormConfig(), DIM) for _ in range(2)] if norms else [None, None]
    residual = Laurel(LaurelConfig(rank=3, **options), DIM, *made)
    for parameter in residual.parameters():
        nn.init.normal_(parameter)
    return residual


def test_a_low_rank_path_goes_beside_the_sublayer() -> None:
    residual, x = laurel(), torch.randn(2, 3, DIM)
    expected = x + x**2 + x @ (residual.up.weight @ residual.down.weight).T
    assert_close(residual(x, lambda h: h**2), expected, atol=1e-5, rtol=1e-4)


def test_laurel_equals_gemma_3n() -> None:
    modeling = pytest.importorskip("transformers.models.gemma3n.modeling_gemma3n")
    config = modeling.Gemma3nTextConfig(
        hidden_size=DIM, laurel_rank=3, num_attention_heads=2, num_key_value_heads=2, rms_norm_eps=1e-6
    )
    theirs = modeling.Gemma3nTextLaurelBlock(config)
    residual, x = laurel(norms=True, add_input=True, factor=2**-0.5), torch.randn(2, 3, DIM)
    assert residual.norm is not None
    assert residual.norm_in is not None
    theirs.load_state_dict(
        {
            "linear_left.weight": residual.down.weight,
            "linear_right.weight": residual.up.weight,
            "post_laurel_norm.weight": residual.norm.weight,
        }
    )
    read = residual.norm_in(x)
    assert_close(residual(x, lambda h: h**2), (x + x**2 + theirs(read)) / math.sqrt(2))


def test_its_norms_are_built_at_the_width_of_the_stream() -> None:
    part = Part("norm", "rms", RMSNorm, RMSNormConfig())
    assert Laurel.parts(LaurelConfig(norm=part), DIM) == {"norm_in": None, "norm": part.at(size=DIM)}


def test_the_rank_is_a_thirty_second_of_the_width_unless_told() -> None:
    assert LaurelConfig().derive(dim=2048) == {"rank": 64}
    assert LaurelConfig().derive(dim=8) == {"rank": 1}
    assert LaurelConfig(rank=5).derive(dim=2048) == {}


def test_every_parameter_gets_a_gradient() -> None:
    residual = laurel(norms=True)
    residual(torch.randn(2, 3, DIM), lambda h: h).square().sum().backward()
    for name, parameter in residual.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
