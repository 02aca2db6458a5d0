from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from lamina.core import Activation, ComponentConfig, Context, OutLinear, Part
from lamina.plugins.activation.relu2 import SquaredReLU
from lamina.plugins.ffn.gated import Gated, GatedConfig
from lamina.plugins.norm.rms import RMSNorm, RMSNormConfig


@pytest.mark.parametrize("bias", [False, True])
def test_gated_matches_three_separate_projections(bias: bool, silu: Activation, context: Context) -> None:
    gate, up, down = nn.Linear(6, 10, bias=bias), nn.Linear(6, 10, bias=bias), nn.Linear(10, 6, bias=bias)
    gated = Gated(GatedConfig(hidden_dim=10, bias=bias), 6, silu)
    fused = {name: torch.cat([value, up.state_dict()[name]]) for name, value in gate.state_dict().items()}
    gated.gate_up.load_state_dict(fused)
    gated.down.load_state_dict(down.state_dict())
    x = torch.randn(2, 3, 6)
    assert_close(gated(x, context), down(F.silu(gate(x)) * up(x)))


@given(dim=st.integers(1, 20_000))
def test_gated_is_eight_thirds_as_wide_rounded_up_to_a_multiple_of_eight(dim: int) -> None:
    hidden = GatedConfig().derive(dim=dim)["hidden_dim"]
    assert hidden % 8 == 0
    assert 0 <= hidden - Fraction(8 * dim, 3) < 8


def test_gated_keeps_the_width_it_is_told() -> None:
    assert GatedConfig(hidden_dim=7).derive(dim=96) == {"out_bias": False}


@pytest.mark.parametrize(("bias", "out_bias"), [(True, False), (False, True), (True, None)])
def test_biases_in_and_out_are_separate(bias: bool, out_bias: bool | None, silu: Activation) -> None:
    config = GatedConfig(hidden_dim=8, bias=bias, out_bias=out_bias)
    gated = Gated(config.model_copy(update=config.derive(dim=4)), 4, silu)
    assert (gated.gate_up.bias is not None) == bias
    assert (gated.down.bias is not None) == (bias if out_bias is None else out_bias)


def test_gated_with_a_norm_inside_equals_bitnet(context: Context) -> None:
    modeling = pytest.importorskip("transformers.models.bitnet.modeling_bitnet")
    config = modeling.BitNetConfig(
        hidden_size=6, intermediate_size=10, hidden_act="relu2", num_attention_heads=2, num_key_value_heads=2
    )
    theirs = modeling.BitNetMLP(config)
    nn.init.normal_(theirs.ffn_sub_norm.weight)
    gated = Gated(GatedConfig(hidden_dim=10), 6, SquaredReLU(), RMSNorm(RMSNormConfig(eps=1e-5), 10))
    weights = theirs.state_dict()
    gated.load_state_dict(
        {
            "gate_up.weight": torch.cat([weights["gate_proj.weight"], weights["up_proj.weight"]]),
            "inner_norm.weight": weights["ffn_sub_norm.weight"],
            "down.weight": weights["down_proj.weight"],
        }
    )
    x = torch.randn(2, 3, 6)
    assert_close(gated(x, context), theirs(x))


def test_the_norm_inside_is_built_at_the_inner_width() -> None:
    norm = Part("norm", "rms", RMSNorm, RMSNormConfig())
    silu = Part("activation", "silu", Activation, ComponentConfig())
    parts = Gated.parts(GatedConfig(hidden_dim=10, activation=silu, inner_norm=norm))
    assert parts["inner_norm"] == norm.at(size=10)
    assert Gated.parts(GatedConfig(hidden_dim=10, activation=silu))["inner_norm"] is None


def test_multipliers_equal_falcon_h1(silu: Activation, context: Context) -> None:
    modeling = pytest.importorskip("transformers.models.falcon_h1.modeling_falcon_h1")
    config = modeling.FalconH1Config(hidden_size=6, intermediate_size=10, mlp_multipliers=[0.7, 1.3], mlp_bias=True)
    theirs = modeling.FalconH1MLP(config)
    gated = Gated(GatedConfig(hidden_dim=10, bias=True, gate_scale=0.7, out_scale=1.3), 6, silu)
    weights = theirs.state_dict()
    gated.load_state_dict(
        {
            f"{name}.{what}": torch.cat([weights[f"{part}_proj.{what}"] for part in parts])
            for name, parts in {"gate_up": ("gate", "up"), "down": ("down",)}.items()
            for what in ("weight", "bias")
        }
    )
    x = torch.randn(2, 3, 6)
    assert_close(gated(x, context), theirs(x))


def test_gated_writes_into_the_residual_stream_through_an_out_linear(silu: Activation) -> None:
    gated = Gated(GatedConfig(hidden_dim=8), 4, silu)
    assert isinstance(gated.down, OutLinear)
    assert not isinstance(gated.gate_up, OutLinear)
