"""Mamba-2 against transformers' own and the recurrence as a loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from lamina.core import ComponentConfig, ConfigProblem, Norm, Part
from lamina.plugins.activation.silu import SiLU
from lamina.plugins.attention.mamba2 import Mamba2, Mamba2Config
from lamina.plugins.norm.rms import RMSNorm, RMSNormConfig

DIM, HEADS, WIDTH, STATE = 8, 4, 6, 5
INNER = HEADS * WIDTH
SILU = Part("activation", "silu", SiLU, ComponentConfig())
RMS = Part("norm", "rms", RMSNorm, RMSNormConfig(eps=1e-5))


def mamba2(**options: Any) -> Mamba2:
    """Built as the core builds it, with random weights."""
    given = {"gate": SILU, "norm": RMS, "n_heads": HEADS, **options}
    config = Mamba2Config(activation=SILU, head_dim=WIDTH, state_dim=STATE, **given)
    config = config.model_copy(update=config.derive(dim=DIM))
    parts: Any = Mamba2.parts(config)
    norms: list[Norm] = [RMSNorm(sized.part.config, sized.sizes["size"]) for sized in parts["norms"]]
    attention = Mamba2(config, DIM, SiLU(), norms, SiLU() if config.gate else None)
    for parameter in attention.parameters():
        nn.init.normal_(parameter, std=0.5)
    return attention


@pytest.mark.parametrize("n_groups", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("length", [1, 9, 70])
def test_mamba2_equals_transformers(whole: Any, n_groups: int, bias: bool, length: int) -> None:
    modeling: Any = pytest.importorskip("transformers.models.mamba2.modeling_mamba2")
    config = modeling.Mamba2Config(
        hidden_size=DIM,
        expand=3,
        num_heads=HEADS,
        head_dim=WIDTH,
        state_size=STATE,
        n_groups=n_groups,
        use_bias=bias,
        use_conv_bias=bias,
        chunk_size=4,
        time_step_limit=(0.3, 0.9),
    )
    reference = modeling.Mamba2Mixer(config, 0).eval()
    attention = mamba2(n_groups=n_groups, bias=bias, conv_bias=bias, dt_min=0.3, dt_max=0.9)
    state: dict[str, Tensor] = {
        "conv1d.weight": attention.conv_weight,
        "in_proj.weight": attention.project.weight,
        "out_proj.weight": attention.out.weight,
        "norm.weight": torch.cat([norm.weight for norm in attention.norms]),  # type: ignore[misc]
        **{name: getattr(attention, name) for name in ("A_log", "dt_bias", "D")},
    }
    if bias:
        own = {
            "conv1d.bias": attention.conv_bias,
            "in_proj.bias": attention.project.bias,
            "out_proj.bias": attention.out.bias,
        }
        state |= own  # type: ignore[arg-type]
    reference.load_state_dict(state)
    x = torch.randn(2, length, DIM)
    assert_close(whole(attention, x), reference(x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("options", [{}, {"gate": None}, {"norm": None}, {"gate": None, "norm": None}])
@pytest.mark.parametrize("before", [True, False])
def test_mamba2_is_its_recurrence_then_norm_and_gate_in_the_order_asked_for(
    whole: Any, options: dict[str, Any], before: bool
) -> None:
    before = before and not options
    attention = mamba2(
        conv_width=1, norm_groups=2 if "norm" not in options else None, norm_before_gate=before, **options
    )
    x = torch.randn(1, 6, DIM)
    z, mixed, dt = attention.project(x[0]).split([INNER if attention.gate else 0, INNER + 2 * STATE, HEADS], -1)
    assert attention.conv_bias is not None
    v, b, c = F.silu(mixed * attention.conv_weight[:, 0, 0] + attention.conv_bias).split([INNER, STATE, STATE], -1)
    dt = F.softplus(dt + attention.dt_bias)
    rows = []
    for h in range(HEADS):
        state, outputs = torch.zeros(WIDTH, STATE), []
        for t in range(6):
            token = v[t, h * WIDTH : (h + 1) * WIDTH]
            state = torch.exp(-attention.A_log[h].exp() * dt[t, h]) * state + dt[t, h] * torch.outer(token, b[t])
            outputs.append(state @ c[t] + attention.D[h] * token)
        rows.append(torch.stack(outputs))
    y, gate = torch.cat(rows, 1), F.silu(z) if attention.gate else 1.0

    def norm(y: Tensor) -> Tensor:
        if not attention.norms:
            return y
        halves = zip(y.chunk(2, -1), attention.norms, strict=True)
        return torch.cat([F.rms_norm(half, (INNER // 2,), n.weight, 1e-5) for half, n in halves], -1)  # type: ignore[arg-type]

    y = norm(y) * gate if before else norm(y * gate)
    assert_close(whole(attention, x)[0], attention.out(y), atol=1e-4, rtol=1e-4)


def test_steps_start_between_a_thousandth_and_a_tenth() -> None:
    attention = mamba2(n_heads=500)
    with torch.no_grad():
        attention.init_weights(0.02)
    steps = F.softplus(attention.dt_bias.detach())
    assert ((steps > 0.9e-3) & (steps < 0.11)).all()
    assert 0.004 < float(steps.log().mean().exp()) < 0.025
    assert ((attention.A_log.exp() >= 1) & (attention.A_log.exp() <= 16)).all()


def test_heads_follow_from_the_expansion_and_back() -> None:
    parts = {"activation": SILU, "gate": SILU, "norm": RMS}
    assert Mamba2Config(head_dim=4, **parts).derive(dim=8) == {"n_heads": 4, "expand": 2.0, "norm_groups": 1}
    given = Mamba2Config(head_dim=4, n_heads=6, n_groups=2, **parts)
    assert given.derive(dim=8) == {"expand": 3.0, "norm_groups": 2}
    again = given.model_copy(update=given.derive(dim=8))
    assert again.derive(dim=8) == {}


@pytest.mark.parametrize(
    ("options", "field", "said"),
    [
        ({"head_dim": 7}, "head_dim", r"expand · dim \(16\) must be a multiple of head_dim \(7\)"),
        (
            {"head_dim": 4, "n_heads": 3, "expand": 2.0},
            "expand",
            r"n_heads · head_dim \(12\) is not expand · dim \(16\)",
        ),
        ({"head_dim": 4, "n_groups": 3}, "n_groups", r"n_heads \(4\) must be a multiple of n_groups \(3\)"),
        ({"head_dim": 4, "norm_groups": 3}, "norm_groups", r"\(16\) must be a multiple of norm_groups \(3\)"),
        ({"head_dim": 4, "dt_min": 0.5, "dt_max": 0.5}, "dt_max", r"dt_max \(0.5\) must be above dt_min \(0.5\)"),
        ({"head_dim": 4, "norm": None, "norm_groups": 2}, "norm_groups", "norm is null"),
        ({"head_dim": 4, "gate": None, "norm_before_gate": True}, "norm_before_gate", "one is null"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], field: str, said: str) -> None:
    with pytest.raises(ConfigProblem, match=said) as problem:
        Mamba2Config(activation=SILU, **{"gate": SILU, "norm": RMS, **options}).derive(dim=8)
    assert problem.value.field == field
