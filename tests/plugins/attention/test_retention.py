"""Retention against the paper's parallel form: decays laid out as a matrix."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from lamina.core import Activation, ConfigProblem, Norm, Position
from lamina.plugins.activation.silu import SiLU
from lamina.plugins.attention.retention import Retention, RetentionConfig
from lamina.plugins.norm.layer import LayerNorm, LayerNormConfig
from lamina.plugins.position.none import NoPosition
from lamina.plugins.position.rope import RoPE, RoPEConfig

DIM, HEADS, WIDTH, V, LENGTH = 12, 3, 4, 5, 9


def retention(
    position: Position | None = None, gate: Activation | None = None, norm: Norm | None = None, **options: Any
) -> Retention:
    config = RetentionConfig(n_heads=HEADS, v_head_dim=V, gate=None, norm=None, **options)
    config = config.model_copy(update=config.derive(dim=DIM))
    attention = Retention(config, DIM, position or NoPosition(), gate, norm)
    for parameter in attention.parameters():
        nn.init.normal_(parameter, std=0.5)
    return attention.double()


@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("normed", [True, False])
def test_retention_is_its_parallel_form(whole: Any, turned: bool, gated: bool, normed: bool) -> None:
    norm = LayerNorm(LayerNormConfig(affine=False, bias=False), V) if normed else None
    attention = retention(RoPE(RoPEConfig(), WIDTH) if turned else None, SiLU() if gated else None, norm, bias=True)
    x = torch.randn(2, LENGTH, DIM, dtype=torch.float64)
    parts = F.linear(x, attention.qkvg.weight, attention.qkvg.bias)
    q, k, v, gate = parts.tensor_split([12, 24, 39], -1)
    q, k = (p.view(2, LENGTH, HEADS, WIDTH).transpose(1, 2) for p in (q, k))
    n = torch.arange(LENGTH)
    if turned:
        angles = n.unsqueeze(1) * torch.tensor([1.0, 0.01])
        spin = torch.polar(torch.ones_like(angles), angles)
        q, k = (torch.view_as_real(torch.complex(*p.chunk(2, -1)) * spin).mT.flatten(-2) for p in (q, k))
    gamma = 1 - 2.0 ** (-5 - torch.arange(HEADS))
    decay = (gamma.view(-1, 1, 1) ** (n.unsqueeze(1) - n)).tril()  # (H, T, T)
    y = (q @ k.mT / WIDTH**0.5 * decay) @ v.view(2, LENGTH, HEADS, V).transpose(1, 2)
    y = y.transpose(1, 2)
    y = F.layer_norm(y, (V,)) if normed else y
    y = y.flatten(2) * (F.silu(gate) if gated else 1)
    assert_close(whole(attention, x), attention.out(y), atol=1e-4, rtol=1e-4)


def test_without_a_gate_there_are_no_weights_for_it() -> None:
    assert retention().qkvg.weight.shape[0] == 2 * HEADS * WIDTH + HEADS * V
    assert retention(gate=SiLU()).qkvg.weight.shape[0] == 2 * HEADS * WIDTH + 2 * HEADS * V


def test_values_are_twice_as_wide_as_keys_unless_said() -> None:
    assert RetentionConfig(n_heads=3, gate=None, norm=None).derive(dim=12) == {"head_dim": 4, "v_head_dim": 8}
    with pytest.raises(ConfigProblem, match=r"dim \(12\) must be a multiple of n_heads \(5\)"):
        RetentionConfig(n_heads=5, gate=None, norm=None).derive(dim=12)
