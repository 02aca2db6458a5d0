from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from lamina.core import Activation, Context, OutLinear
from lamina.plugins.ffn.mlp import MLP, MLPConfig


@pytest.mark.parametrize("bias", [False, True])
def test_mlp_is_torchs_linear_layers_around_the_activation(bias: bool, silu: Activation, context: Context) -> None:
    reference = nn.Sequential(nn.Linear(6, 10, bias=bias), nn.SiLU(), nn.Linear(10, 6, bias=bias))
    mlp = MLP(MLPConfig(hidden_dim=10, bias=bias), 6, silu)
    mlp.up.load_state_dict(reference[0].state_dict())
    mlp.down.load_state_dict(reference[2].state_dict())
    x = torch.randn(2, 3, 6)
    assert_close(mlp(x, context), reference(x))


def test_mlp_is_four_times_as_wide_inside_unless_told() -> None:
    assert MLPConfig().derive(dim=96) == {"hidden_dim": 384}
    assert MLPConfig(hidden_dim=7).derive(dim=96) == {}


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
