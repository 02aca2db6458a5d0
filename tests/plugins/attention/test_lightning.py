"""Lightning attention against transformers' MiniMax and as a matrix of decays."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from lamina.core import Activation, ComponentConfig, ConfigProblem, Norm, Part
from lamina.plugins.activation.sigmoid import Sigmoid
from lamina.plugins.activation.silu import SiLU
from lamina.plugins.attention.lightning import Lightning, LightningConfig
from lamina.plugins.norm.rms import RMSNorm, RMSNormConfig
from lamina.plugins.position.none import NoPosition

DIM, HEADS, WIDTH, LENGTH = 12, 3, 4, 9
SILU = Part("activation", "silu", SiLU, ComponentConfig())


def lightning(layer: int = 1, gate: Activation | None = None, norm: Norm | None = None, **options: Any) -> Lightning:
    config = LightningConfig(n_heads=HEADS, activation=SILU, gate=None, norm=None, **options)
    config = config.model_copy(update=config.derive(dim=DIM))
    attention = Lightning(config, DIM, layer, 4, NoPosition(), SiLU(), gate, norm)
    for parameter in attention.parameters():
        nn.init.normal_(parameter, std=0.5)
    return attention


@pytest.mark.parametrize("layer", [0, 2, 3])
def test_lightning_equals_minimax(whole: Any, layer: int) -> None:
    modeling: Any = pytest.importorskip("transformers.models.minimax.modeling_minimax")
    config = modeling.MiniMaxConfig(
        hidden_size=DIM,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        head_dim=WIDTH,
        num_hidden_layers=4,
        layer_types=["linear_attention"] * 4,
        block_size=4,
    )
    reference = modeling.MiniMaxLightningAttention(config, layer).eval()
    attention = lightning(layer, Sigmoid(), RMSNorm(RMSNormConfig(), DIM))
    assert attention.gate_in is not None
    assert attention.norm is not None
    names = {
        "qkv_proj": attention.qkv,
        "output_gate": attention.gate_in,
        "out_proj": attention.out,
        "norm": attention.norm,
    }
    reference.load_state_dict({f"{name}.weight": own.weight for name, own in names.items()}, strict=False)
    x = torch.randn(2, LENGTH, DIM)
    expected, _ = reference(x, position_embeddings=None, attention_mask=None)
    assert_close(whole(attention, x), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("bias", [True, False])
def test_without_gate_norm_and_layer_decay_the_bare_recurrence_is_left(whole: Any, bias: bool) -> None:
    attention, x = lightning(layer_decay=False, bias=bias), torch.randn(2, LENGTH, DIM)
    heads = F.silu(F.linear(x, attention.qkv.weight, attention.qkv.bias)).view(2, LENGTH, HEADS, 3, WIDTH)
    q, k, v = heads.permute(3, 0, 2, 1, 4)
    n = torch.arange(LENGTH)
    slopes = 2.0 ** (-8 * torch.arange(1, HEADS + 1) / HEADS)
    decay = torch.exp(-slopes.view(-1, 1, 1) * (n.unsqueeze(1) - n)).tril()
    expected = attention.out(((q @ k.mT * decay) @ v).transpose(1, 2).flatten(2))
    assert_close(whole(attention, x), expected, atol=1e-5, rtol=1e-4)
    assert attention.gate_in is None


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ConfigProblem, match=r"dim \(12\) must be a multiple of n_heads \(5\)"):
        LightningConfig(n_heads=5, activation=SILU, gate=None, norm=None).derive(dim=12)
