"""Mamba against transformers' own, and Jamba's and Falcon's with norms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from lamina.core import ComponentConfig, Part
from lamina.plugins.activation.silu import SiLU
from lamina.plugins.attention.mamba import Mamba, MambaConfig
from lamina.plugins.norm.rms import RMSNorm, RMSNormConfig

DIM, WIDTH, STATE, RANK = 8, 12, 5, 3
SILU = Part("activation", "silu", SiLU, ComponentConfig())
RMS = Part("norm", "rms", RMSNorm, RMSNormConfig())


def mamba(**options: Any) -> Mamba:
    """Built as the core builds it, with random weights."""
    given = {"activation": SILU, "gate": SILU, "norm": None, "width": WIDTH, **options}
    config = MambaConfig(state_dim=STATE, dt_rank=RANK, **given)
    parts: Any = Mamba.parts(config)
    names = [name for name in ("dt_norm", "b_norm", "c_norm") if parts[name] is not None]
    norms: dict[str, Any] = {name: RMSNorm(RMSNormConfig(), parts[name].sizes["size"]) for name in names}
    attention = Mamba(config, DIM, SiLU(), SiLU() if config.gate else None, **norms)
    for parameter in attention.parameters():
        nn.init.normal_(parameter, std=0.5)
    return attention


def in_their_names(attention: Mamba) -> dict[str, Tensor]:
    renamed = {
        "conv1d.weight": attention.conv_weight,
        "conv1d.bias": attention.conv_bias,
        "in_proj.weight": attention.project.weight,
        "in_proj.bias": attention.project.bias,
        "x_proj.weight": attention.select.weight,
        "dt_proj.weight": attention.dt_weight,
        "dt_proj.bias": attention.dt_bias,
        "out_proj.weight": attention.out.weight,
        "out_proj.bias": attention.out.bias,
        "A_log": attention.A_log.view(-1, STATE),
        "D": attention.D,
    }
    return {name: tensor for name, tensor in renamed.items() if tensor is not None}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("length", [1, 9])
def test_mamba_equals_transformers(whole: Any, bias: bool, length: int) -> None:
    modeling: Any = pytest.importorskip("transformers.models.mamba.modeling_mamba")
    config = modeling.MambaConfig(
        hidden_size=DIM,
        intermediate_size=WIDTH,
        state_size=STATE,
        time_step_rank=RANK,
        use_bias=bias,
        use_conv_bias=bias,
    )
    config.intermediate_size = WIDTH  # the config's own is expand · hidden_size
    reference = modeling.MambaMixer(config, 0).eval()
    attention = mamba(bias=bias, conv_bias=bias)
    reference.load_state_dict(in_their_names(attention))
    x = torch.randn(2, length, DIM)
    assert_close(whole(attention, x), reference(x), atol=1e-4, rtol=1e-4)


def test_with_norms_it_equals_jamba(whole: Any) -> None:
    modeling: Any = pytest.importorskip("transformers.models.jamba.modeling_jamba")
    config = modeling.JambaConfig(
        hidden_size=DIM, mamba_expand=2, mamba_d_state=STATE, mamba_dt_rank=RANK, num_hidden_layers=1
    )
    reference = modeling.JambaMambaMixer(config, 0).eval()
    attention = mamba(norm=RMS, width=2 * DIM)
    norms = {"dt_layernorm": attention.dt_norm, "b_layernorm": attention.b_norm, "c_layernorm": attention.c_norm}
    weights = {f"{name}.weight": norm.weight for name, norm in norms.items() if norm is not None}
    reference.load_state_dict({**in_their_names(attention), **weights})
    x = torch.randn(2, 9, DIM)
    assert_close(whole(attention, x), reference(x), atol=1e-4, rtol=1e-4)


def test_without_a_gate_the_recurrence_is_left(whole: Any) -> None:
    attention, x = mamba(gate=None, conv_width=1, conv_bias=False), torch.randn(1, 6, DIM)
    mixed = F.silu(attention.project(x[0]) * attention.conv_weight[:, 0, 0])
    latent, b, c = attention.select(mixed).split([RANK, STATE, STATE], -1)
    step = F.softplus(latent @ attention.dt_weight.T + attention.dt_bias)
    h, rows = torch.zeros(WIDTH, STATE), []
    for t in range(6):
        h = torch.exp(-attention.A_log.exp().view(WIDTH, STATE) * step[t].unsqueeze(1)) * h + torch.outer(
            step[t] * mixed[t], b[t]
        )
        rows.append(h @ c[t] + attention.D * mixed[t])
    assert_close(whole(attention, x)[0], attention.out(torch.stack(rows)), atol=1e-4, rtol=1e-4)
    assert attention.project.weight.shape[0] == WIDTH


def test_it_starts_with_paces_one_to_n_and_steps_between_a_thousandth_and_a_tenth() -> None:
    attention = mamba(width=500)
    with torch.no_grad():
        attention.init_weights(0.02)
    assert_close(attention.A_log.exp(), torch.arange(1.0, STATE + 1).repeat(500))
    steps = F.softplus(attention.dt_bias.detach())
    assert ((steps > 0.9e-3) & (steps < 0.11)).all()
    assert 0.004 < float(steps.log().mean().exp()) < 0.025


def test_sizes_left_open_follow_from_the_width_of_the_stream() -> None:
    parts = {"activation": SILU, "gate": SILU, "norm": None}
    assert MambaConfig(**parts).derive(dim=24) == {"width": 48, "dt_rank": 2}
    assert MambaConfig(width=10, dt_rank=7, **parts).derive(dim=24) == {}
