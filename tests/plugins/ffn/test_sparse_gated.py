"""The sparse gated ffn against Gemma 3n, and the share of channels it leaves at zero."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lamina.core import Activation, Context
from lamina.plugins.activation.gelu_tanh import GELUTanh
from lamina.plugins.ffn.sparse_gated import SparseGated, SparseGatedConfig


def sparse(sparsity: float, activation: Activation, hidden_dim: int = 20) -> SparseGated:
    ffn = SparseGated(SparseGatedConfig(hidden_dim=hidden_dim, sparsity=sparsity), 6, activation)
    for parameter in ffn.parameters():
        nn.init.normal_(parameter)
    return ffn


@pytest.mark.parametrize("sparsity", [0.95, 0.5, 0.2])
def test_sparse_gated_equals_gemma_3n(sparsity: float, context: Context) -> None:
    modeling = pytest.importorskip("transformers.models.gemma3n.modeling_gemma3n")
    config = modeling.Gemma3nTextConfig(
        hidden_size=6,
        intermediate_size=20,
        num_hidden_layers=1,
        activation_sparsity_pattern=[sparsity],
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    ffn, theirs, x = sparse(sparsity, GELUTanh()), modeling.Gemma3nTextMLP(config), torch.randn(2, 3, 6)
    gate, up = ffn.gate_up.weight.split(20)
    theirs.load_state_dict({"gate_proj.weight": gate, "up_proj.weight": up, "down_proj.weight": ffn.down.weight})
    assert_close(ffn(x, context), theirs(x))


@pytest.mark.parametrize("sparsity", [0.9, 0.3])
def test_about_the_given_share_of_channels_is_zero(sparsity: float, context: Context) -> None:
    seen: list[torch.Tensor] = []

    class Watch(Activation):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            return x

    sparse(sparsity, Watch(), hidden_dim=4096)(torch.randn(8, 6), context)
    assert abs((seen[0] == 0).float().mean().item() - sparsity) < 0.02


def test_no_tokens_at_all_are_no_trouble(context: Context) -> None:
    """An expert that no token chose runs on none."""
    ffn = sparse(0.5, GELUTanh())
    ffn(torch.zeros(0, 6), context).sum().backward()
    assert ffn.gate_up.weight.grad is not None
    assert not ffn.gate_up.weight.grad.any()


def test_its_width_is_that_of_a_gated_ffn_unless_told() -> None:
    assert SparseGatedConfig().derive(dim=6) == {"hidden_dim": 16}
    assert SparseGatedConfig(hidden_dim=7).derive(dim=6) == {}
