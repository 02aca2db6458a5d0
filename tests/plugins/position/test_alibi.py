"""ALiBi against transformers' Bloom and the paper's figures."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.testing import assert_close

from lamina.core import Span
from lamina.plugins.position.alibi import ALiBi, ALiBiConfig, slopes


@pytest.mark.parametrize("n_heads", [1, 2, 3, 4, 6, 8, 12, 16, 20, 31, 71])
def test_slopes_equal_bloom(n_heads: int) -> None:
    bloom: Any = pytest.importorskip("transformers.models.bloom.modeling_bloom")
    expected = bloom.build_alibi_tensor(torch.ones(1, 2, dtype=torch.int64), n_heads, torch.float32)[:, 0, 1]
    assert_close(torch.tensor(slopes(n_heads, 8.0)), expected)


def test_eight_heads_have_the_slopes_of_the_paper() -> None:
    assert slopes(8, 8.0) == [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256]


def test_the_penalty_is_slope_times_distance() -> None:
    queries, keys = Span(torch.tensor([[5, 6], [0, 1]])), Span(torch.tensor([[4, 5, 6], [0, 1, 2]]))
    bias = ALiBi(ALiBiConfig(max_bias=4.0), n_heads=2).bias(torch.randn(2, 2, 2, 4), queries, keys)
    assert bias.shape == (2, 2, 2, 3)
    for b, h, t, s in [(0, 0, 0, 0), (0, 1, 1, 0), (1, 1, 1, 0), (0, 0, 1, 2)]:
        distance = int(queries.positions[b, t] - keys.positions[b, s])
        assert bias[b, h, t, s].item() == -[2**-2, 2**-4][h] * distance


def test_a_scale_multiplies_every_slope() -> None:
    span, q = Span(torch.tensor([[0, 1, 2]])), torch.randn(1, 2, 3, 4)
    plain, scaled = (ALiBi(ALiBiConfig(scale=scale), n_heads=2).bias(q, span, span) for scale in (1.0, 0.25))
    assert scaled.abs().max() > 0
    assert_close(scaled, plain * 0.25)


def test_alibi_acts_on_scores_alone() -> None:
    assert ALiBi.acts_at() == {"scores"}
    assert ALiBi.requires(ALiBiConfig()) == {"attention": frozenset({"scores"})}


def test_alibi_keeps_the_invariants(check_scheme: Any) -> None:
    check_scheme("alibi")
