"""Rotary positions against transformers, the formula, and the property they are for."""

from __future__ import annotations

import cmath
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from lamina.core import ConfigProblem, Context, Span
from lamina.plugins.position.rope import RoPE, RoPEConfig

Layout = Literal["half", "interleaved"]


def turned_by_formula(x: Tensor, positions: list[list[int]], theta: float, width: int, layout: Layout) -> Tensor:
    """Each pair as one complex number, times e^(i · position · theta^(-2 pair / width))."""
    out = x.clone()
    for b, h, t in [(b, h, t) for b in range(x.shape[0]) for h in range(x.shape[1]) for t in range(x.shape[2])]:
        for pair in range(width // 2):
            i, j = (pair, pair + width // 2) if layout == "half" else (2 * pair, 2 * pair + 1)
            turn = cmath.exp(1j * positions[b][t] * theta ** (-2 * pair / width))
            z = complex(x[b, h, t, i], x[b, h, t, j]) * turn
            out[b, h, t, i], out[b, h, t, j] = z.real, z.imag
    return out


@pytest.mark.parametrize("layout", ["half", "interleaved"])
@pytest.mark.parametrize(("head_dim", "fraction"), [(8, 1.0), (8, 0.5), (7, 0.6)])
@pytest.mark.parametrize("theta", [10_000.0, 50.0])
def test_rope_turns_each_pair_by_its_angle(
    context_at: Callable[..., Context], layout: Layout, head_dim: int, fraction: float, theta: float
) -> None:
    places = [[0, 3, 9], [1, 0, 1]]
    q, k = torch.randn(2, 4, 3, head_dim), torch.randn(2, 2, 3, head_dim)
    position = RoPE(RoPEConfig(theta=theta, layout=layout, fraction=fraction), head_dim)
    width = int(head_dim * fraction)
    q_turned, k_turned = position.rotate(q, k, context_at(places))
    assert_close(q_turned, turned_by_formula(q, places, theta, width, layout))
    assert_close(k_turned, turned_by_formula(k, places, theta, width, layout))


def run_context(start: int, length: int) -> Context:
    return Context(torch.zeros(1, length, dtype=torch.int64), Span.run(start, length, torch.device("cpu")))


def test_half_layout_equals_llama() -> None:
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    config = llama.LlamaConfig(
        hidden_size=32, num_attention_heads=4, rope_parameters={"rope_type": "default", "rope_theta": 500.0}
    )
    q, k = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 5, 8)
    cos, sin = llama.LlamaRotaryEmbedding(config)(q, torch.arange(3, 8).unsqueeze(0))
    expected = llama.apply_rotary_pos_emb(q, k, cos, sin)
    assert_close(RoPE(RoPEConfig(theta=500.0), 8).rotate(q, k, run_context(3, 5)), expected)


def test_partial_interleaved_layout_equals_gptj() -> None:
    gptj: Any = pytest.importorskip("transformers.models.gptj.modeling_gptj")
    q = torch.randn(2, 4, 5, 8)
    sin, cos = gptj.create_sinusoidal_positions(5, 4).unsqueeze(0).chunk(2, -1)
    front = gptj.apply_rotary_pos_emb(q[..., :4].transpose(1, 2), sin, cos).transpose(1, 2)
    turned, _ = RoPE(RoPEConfig(layout="interleaved", fraction=0.5), 8).rotate(q, q, run_context(0, 5))
    assert_close(turned, torch.cat([front, q[..., 4:]], -1))


@pytest.mark.parametrize("layout", ["half", "interleaved"])
@given(shift=st.integers(0, 1000))
def test_scores_depend_on_distance_alone(layout: Layout, shift: int) -> None:
    position, q, k = RoPE(RoPEConfig(layout=layout), 8), torch.randn(1, 1, 4, 8), torch.randn(1, 1, 4, 8)

    def scores(start: int) -> Tensor:
        q_turned, k_turned = position.rotate(q, k, run_context(start, 4))
        return q_turned @ k_turned.transpose(-1, -2)

    assert_close(scores(shift), scores(0), atol=2e-4, rtol=1e-3)


def test_half_precision_is_turned_in_float32() -> None:
    position, x = RoPE(RoPEConfig(), 16), torch.randn(1, 1, 4, 16).to(torch.bfloat16)
    turned, _ = position.rotate(x, x, run_context(4000, 4))
    exact, _ = position.rotate(x.float(), x.float(), run_context(4000, 4))
    assert turned.dtype == torch.bfloat16
    assert turned.equal(exact.to(torch.bfloat16))


def test_tables_are_made_once_a_pass() -> None:
    position, context, x = RoPE(RoPEConfig(), 4), run_context(0, 2), torch.randn(1, 1, 2, 4)
    made = []
    tables = position._tables
    position._tables = lambda context: made.append(1) or tables(context)  # type: ignore[method-assign,func-returns-value]
    for _ in range(3):
        position.rotate(x, x, context)
    assert len(made) == 1


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_gradients_are_right_and_inputs_are_left_alone(layout: Layout) -> None:
    position, context = RoPE(RoPEConfig(layout=layout, fraction=0.5), 8), run_context(2, 3)
    x = torch.randn(1, 2, 3, 8, dtype=torch.float64, requires_grad=True)
    before = x.detach().clone()
    assert torch.autograd.gradcheck(lambda x: position.rotate(x, 2 * x, context), x)
    assert x.equal(before)


@pytest.mark.parametrize(("head_dim", "fraction"), [(5, 1.0), (8, 0.125), (6, 0.5)])
def test_channels_that_make_no_pairs_are_refused(head_dim: int, fraction: float) -> None:
    with pytest.raises(ConfigProblem, match="turned in pairs"):
        RoPEConfig(fraction=fraction).derive(head_dim=head_dim)


def test_a_share_that_binary_numbers_miss_is_still_whole() -> None:
    assert RoPEConfig(fraction=0.6).width(10) == 6
    assert RoPEConfig(fraction=0.3).width(20) == 6


LISTS = {"short_factor": [1.0, 2.0], "long_factor": [3.0, 4.0]}


@pytest.mark.parametrize(
    "scaling",
    [
        None,
        {"name": "yarn", "original_context_length": 8, "factor": 2.0},
        {"name": "dynamic", "original_context_length": 4, "factor": 2.0, "length": 9},
        {"name": "longrope", "original_context_length": 4, "length": 9, **LISTS},
    ],
    ids=lambda scaling: scaling and scaling["name"],
)
def test_rope_keeps_the_invariants(check_scheme: Any, scaling: dict[str, Any] | None) -> None:
    check_scheme({"name": "rope", "theta": 100.0, "fraction": 0.5, "scaling": scaling})
