"""Gated DeltaNet against transformers' Qwen3-Next and the paper's matrices."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from lamina.core import Activation, ComponentConfig, ConfigProblem, Norm, Part
from lamina.plugins.activation.silu import SiLU
from lamina.plugins.attention.gated_deltanet import GatedDeltaNet, GatedDeltaNetConfig
from lamina.plugins.norm.rms import RMSNorm, RMSNormConfig

DIM, HEADS, QK_HEADS, WIDTH, V = 12, 4, 2, 3, 5
SILU = Part("activation", "silu", SiLU, ComponentConfig())


def gated_deltanet(gate: Activation | None = None, norm: Norm | None = None, **options: Any) -> GatedDeltaNet:
    sizes = {"n_heads": HEADS, "n_qk_heads": QK_HEADS, "head_dim": WIDTH, "v_head_dim": V}
    config = GatedDeltaNetConfig(**sizes, activation=SILU, gate=None, norm=None, **options)
    attention = GatedDeltaNet(config.model_copy(update=config.derive(dim=DIM)), DIM, SiLU(), gate, norm)
    for parameter in attention.parameters():
        nn.init.normal_(parameter, std=0.5)
    return attention


def grouped(attention: GatedDeltaNet) -> dict[str, Tensor]:
    """The two projections in Qwen3-Next's order: all that belongs to one head of keys together."""
    ratio = HEADS // QK_HEADS
    widths = [QK_HEADS * WIDTH] * 2 + [HEADS * V] * 2
    parts = [part.unflatten(0, (QK_HEADS, -1)) for part in attention.qkvz.weight.split(widths)]
    strengths = [part.unflatten(0, (QK_HEADS, ratio)) for part in attention.ba.weight.split(HEADS)]
    return {
        "in_proj_qkvz.weight": torch.cat(parts, 1).flatten(0, 1),
        "in_proj_ba.weight": torch.cat(strengths, 1).flatten(0, 1),
    }


@pytest.mark.parametrize("length", [1, 9, 70])
def test_gated_deltanet_equals_qwen3_next(whole: Any, length: int) -> None:
    modeling: Any = pytest.importorskip("transformers.models.qwen3_next.modeling_qwen3_next")
    config = modeling.Qwen3NextConfig(
        hidden_size=DIM,
        linear_num_value_heads=HEADS,
        linear_num_key_heads=QK_HEADS,
        linear_key_head_dim=WIDTH,
        linear_value_head_dim=V,
        linear_conv_kernel_dim=4,
        num_hidden_layers=1,
        layer_types=["linear_attention"],
    )
    reference = modeling.Qwen3NextGatedDeltaNet(config, 0).eval()
    attention = gated_deltanet(SiLU(), RMSNorm(RMSNormConfig(eps=config.rms_norm_eps), V))
    assert attention.norm is not None
    own = {name: p for name, p in attention.state_dict().items() if name in ("A_log", "dt_bias", "norm.weight")}
    state = {"conv1d.weight": attention.conv_weight, "out_proj.weight": attention.out.weight}
    reference.load_state_dict({**own, **state, **grouped(attention)})
    x = torch.randn(2, length, DIM)
    assert_close(whole(attention, x), reference(x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("decay", [True, False])
@pytest.mark.parametrize("negative", [True, False])
def test_the_state_is_a_product_of_matrices(whole: Any, decay: bool, negative: bool) -> None:
    attention = gated_deltanet(decay=decay, negative_eigenvalues=negative, conv_width=1)
    x = torch.randn(1, 6, DIM)
    mixed = F.silu(attention.qkvz(x[0]) * attention.conv_weight[:, 0, 0])
    q, k, v = mixed.tensor_split([QK_HEADS * WIDTH, 2 * QK_HEADS * WIDTH], -1)
    q, k = (part.unflatten(-1, (QK_HEADS, WIDTH)) for part in (q, k))
    q, k = (part / (part.square().sum(-1, keepdim=True) + 1e-6).sqrt() for part in (q, k))
    v, ba = v.unflatten(-1, (HEADS, V)), attention.ba(x[0])
    rows = []
    for h in range(HEADS):
        state, outputs = torch.zeros(WIDTH, V), []
        for t in range(6):
            key, beta = k[t, h // 2], ba[t, h].sigmoid() * (2 if negative else 1)
            if attention.A_log is not None and attention.dt_bias is not None:
                state = state * torch.exp(
                    -attention.A_log[h].exp() * F.softplus(ba[t, HEADS + h] + attention.dt_bias[h])
                )
            state = (torch.eye(WIDTH) - beta * torch.outer(key, key)) @ state + beta * torch.outer(key, v[t, h])
            outputs.append(state.T @ q[t, h // 2] / WIDTH**0.5)
        rows.append(torch.stack(outputs))
    assert_close(whole(attention, x)[0], attention.out(torch.cat(rows, 1)), atol=1e-4, rtol=1e-4)
    assert (attention.A_log is not None) == decay


def test_decays_start_between_almost_none_and_e_to_the_minus_16(whole: Any) -> None:
    attention = gated_deltanet()
    with torch.no_grad():
        attention.init_weights(0.02)
    assert attention.A_log is not None
    assert ((attention.A_log.exp() > 0) & (attention.A_log.exp() < 16)).all()
    assert (attention.conv_weight.abs() <= 0.5).all()
    assert attention.conv_weight.std() > 0.1


def test_sizes_that_do_not_fit_are_refused_with_what_would() -> None:
    parts = {"activation": SILU, "gate": None, "norm": None}
    with pytest.raises(ConfigProblem, match=r"n_heads \(4\) must be a multiple of n_qk_heads \(3\)") as problem:
        GatedDeltaNetConfig(n_heads=4, n_qk_heads=3, **parts).derive(dim=12)
    assert (problem.value.field, problem.value.hint) == ("n_qk_heads", "use one of 1, 2, 4")
    with pytest.raises(ConfigProblem, match=r"dim \(12\) must be a multiple of n_heads \(5\)"):
        GatedDeltaNetConfig(n_heads=5, **parts).derive(dim=12)
    assert GatedDeltaNetConfig(n_heads=4, **parts).derive(dim=12) == {"n_qk_heads": 4, "head_dim": 3, "v_head_dim": 3}
