from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from lamina.core import Activation, ComponentConfig, Context, OutLinear, Part
from lamina.plugins.ffn.mlp import MLP, MLPConfig
from lamina.plugins.norm.rms import RMSNorm, RMSNormConfig


@pytest.mark.parametrize("bias", [False, True])
def test_mlp_is_torchs_linear_layers_around_the_activation(bias: bool, silu: Activation, context: Context) -> None:
    reference = nn.Sequential(nn.Linear(6, 10, bias=bias), nn.SiLU(), nn.Linear(10, 6, bias=bias))
    mlp = MLP(MLPConfig(hidden_dim=10, bias=bias), 6, silu)
    mlp.up.load_state_dict(reference[0].state_dict())
    mlp.down.load_state_dict(reference[2].state_dict())
    x = torch.randn(2, 3, 6)
    assert_close(mlp(x, context), reference(x))


def test_mlp_is_four_times_as_wide_inside_unless_told() -> None:
    assert MLPConfig().derive(dim=96) == {"hidden_dim": 384, "out_bias": False}
    assert MLPConfig(hidden_dim=7, out_bias=True).derive(dim=96) == {}


@pytest.mark.parametrize(("bias", "out_bias"), [(True, False), (False, True), (True, None)])
def test_biases_in_and_out_are_separate(bias: bool, out_bias: bool | None, silu: Activation) -> None:
    config = MLPConfig(hidden_dim=8, bias=bias, out_bias=out_bias)
    mlp = MLP(config.model_copy(update=config.derive(dim=4)), 4, silu)
    assert (mlp.up.bias is not None) == bias
    assert (mlp.down.bias is not None) == (bias if out_bias is None else out_bias)


def test_a_norm_inside_acts_before_the_projection_back(silu: Activation, context: Context) -> None:
    norm = RMSNorm(RMSNormConfig(), 8)
    nn.init.normal_(norm.weight)
    mlp, x = MLP(MLPConfig(hidden_dim=8), 4, silu, norm), torch.randn(5, 4)
    nn.init.normal_(mlp.up.weight)
    nn.init.normal_(mlp.down.weight)
    hidden = F.rms_norm(F.silu(x @ mlp.up.weight.T), (8,), norm.weight, 1e-6)
    assert_close(mlp(x, context), hidden @ mlp.down.weight.T)
    part = Part("norm", "rms", RMSNorm, RMSNormConfig())
    config = MLPConfig(hidden_dim=8, activation=Part("activation", "silu", Activation, ComponentConfig()))
    assert MLP.parts(config.model_copy(update={"inner_norm": part}))["inner_norm"] == part.at(size=8)


def test_mlp_writes_into_the_residual_stream_through_an_out_linear(silu: Activation) -> None:
    mlp = MLP(MLPConfig(hidden_dim=8), 4, silu)
    assert isinstance(mlp.down, OutLinear)
    assert not isinstance(mlp.up, OutLinear)


def test_every_parameter_of_an_mlp_is_active(silu: Activation) -> None:
    assert MLP(MLPConfig(hidden_dim=8, bias=True), 4, silu).active_parameters() == 4 * 8 + 8 + 8 * 4 + 4


def test_mlp_applies_the_activation_it_is_given(context: Context) -> None:
    class Cube(Activation):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x**3

    mlp = MLP(MLPConfig(hidden_dim=8), 4, Cube())
    nn.init.normal_(mlp.up.weight)
    nn.init.normal_(mlp.down.weight)
    x = torch.randn(5, 4)
    assert_close(mlp(x, context), F.linear(F.linear(x, mlp.up.weight) ** 3, mlp.down.weight))
