from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from lamina.core import Activation, Context, OutLinear
from lamina.plugins.ffn.gated import Gated, GatedConfig


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
    assert GatedConfig(hidden_dim=7).derive(dim=96) == {}


def test_gated_writes_into_the_residual_stream_through_an_out_linear(silu: Activation) -> None:
    gated = Gated(GatedConfig(hidden_dim=8), 4, silu)
    assert isinstance(gated.down, OutLinear)
    assert not isinstance(gated.gate_up, OutLinear)
