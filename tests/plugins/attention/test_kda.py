"""Kimi delta attention against transformers' Kimi Linear and the paper's matrices."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from lamina.core import ComponentConfig, ConfigProblem, Norm, Part
from lamina.plugins.activation.sigmoid import Sigmoid
from lamina.plugins.activation.silu import SiLU
from lamina.plugins.attention.kda import KDA, KDAConfig
from lamina.plugins.norm.rms import RMSNorm, RMSNormConfig

DIM, HEADS, WIDTH, RANK = 12, 3, 5, 5
PARTS = {
    "activation": Part("activation", "silu", SiLU, ComponentConfig()),
    "gate": Part("activation", "sigmoid", Sigmoid, ComponentConfig()),
    "norm": None,
}


def kda(norm: Norm | None = None, **options: Any) -> KDA:
    config = KDAConfig(**{"n_heads": HEADS, "head_dim": WIDTH, **PARTS, **options})
    attention = KDA(config.model_copy(update=config.derive(dim=DIM)), DIM, SiLU(), Sigmoid(), norm)
    for parameter in attention.parameters():
        nn.init.normal_(parameter, std=0.5)
    return attention


@pytest.mark.parametrize("length", [1, 9, 70])
def test_kda_equals_kimi_linear(whole: Any, length: int) -> None:
    modeling: Any = pytest.importorskip("transformers.models.kimi_linear.modeling_kimi_linear")
    config = modeling.KimiLinearConfig(
        hidden_size=DIM,
        linear_num_heads=HEADS,
        linear_head_dim=WIDTH,
        num_hidden_layers=1,
        layer_types=["linear_attention"],
    )
    reference = modeling.KimiLinearDeltaAttention(config, 0).eval()
    attention = kda(RMSNorm(RMSNormConfig(eps=config.rms_norm_eps), WIDTH))
    own = attention.state_dict()
    down = own["down.weight"].split([RANK, RANK, HEADS])
    q, k, v = own["qkv.weight"].chunk(3)
    reference.load_state_dict(
        {
            "q_proj.weight": q,
            "k_proj.weight": k,
            "v_proj.weight": v,
            "conv1d.weight": own["conv_weight"],
            "forget_gate.f_a_proj.weight": down[0],
            "forget_gate.f_b_proj.weight": own["decay_up.weight"],
            "forget_gate.dt_bias": own["dt_bias"],
            "forget_gate.A_log": own["A_log"].view(1, 1, HEADS, 1),
            "g_a_proj.weight": down[1],
            "g_b_proj.weight": own["gate_up.weight"],
            "b_proj.weight": down[2],
            "o_norm.weight": own["norm.weight"],
            "o_proj.weight": own["out.weight"],
        }
    )
    x = torch.randn(2, length, DIM)
    assert_close(whole(attention, x), reference(x), atol=1e-4, rtol=1e-4)


def test_the_state_is_a_product_of_matrices(whole: Any) -> None:
    attention = kda(conv_width=1, rank=2)
    x = torch.randn(1, 6, DIM)
    mixed = F.silu(attention.qkv(x[0]) * attention.conv_weight[:, 0, 0])
    q, k, v = mixed.unflatten(-1, (3, HEADS, WIDTH)).unbind(1)
    q, k = (part / (part.square().sum(-1, keepdim=True) + 1e-6).sqrt() for part in (q, k))
    decay, gate, strength = attention.down(x[0]).split([2, 2, HEADS], -1)
    step = F.softplus(attention.decay_up(decay) + attention.dt_bias).unflatten(-1, (HEADS, WIDTH))
    rows = []
    for h in range(HEADS):
        state, outputs = torch.zeros(WIDTH, WIDTH), []
        for t in range(6):
            key, beta = k[t, h], strength[t, h].sigmoid()
            fade = torch.diag(torch.exp(-attention.A_log[h].exp() * step[t, h]))
            state = (torch.eye(WIDTH) - beta * torch.outer(key, key)) @ fade @ state + beta * torch.outer(key, v[t, h])
            outputs.append(state.T @ q[t, h] / WIDTH**0.5)
        rows.append(torch.stack(outputs))
    gated = torch.cat(rows, 1) * attention.gate_up(gate).sigmoid()
    assert_close(whole(attention, x)[0], attention.out(gated), atol=1e-4, rtol=1e-4)


def test_decays_start_as_published() -> None:
    attention = kda()
    with torch.no_grad():
        attention.init_weights(0.02)
    assert ((attention.A_log.exp() >= 1) & (attention.A_log.exp() <= 16)).all()
    steps = F.softplus(attention.dt_bias)
    assert ((steps > 0.99e-3) & (steps < 1.01e-1)).all()
    assert steps.max() > 2 * steps.min()


def test_sizes_follow_from_the_width_or_are_refused() -> None:
    assert KDAConfig(n_heads=3, **PARTS).derive(dim=12) == {"head_dim": 4, "rank": 4}
    assert KDAConfig(n_heads=5, head_dim=2, rank=7, **PARTS).derive(dim=12) == {}
    with pytest.raises(ConfigProblem, match=r"dim \(12\) must be a multiple of n_heads \(5\)"):
        KDAConfig(n_heads=5, **PARTS).derive(dim=12)
