"""xPos against the paper's formula, near the beginning and far from it."""

from __future__ import annotations

import cmath
import itertools
from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lamina.core import Context, GenerationError, Span
from lamina.core.context import place_documents
from lamina.plugins.position.xpos import XPos, XPosConfig

CPU = torch.device("cpu")
Layout = Literal["half", "interleaved"]


def met(position: XPos, q: Tensor, k: Tensor, queries: Span, keys: Span) -> Tensor:
    """Scores of queries and keys, each turned in a call of its own."""
    q, _ = position.rotate(q, q, Context(torch.zeros(1, 1), queries))
    _, k = position.rotate(k, k, Context(torch.zeros(1, 1), keys))
    q, k = position.meet(q, k, queries, keys)
    return q @ k.mT


def score_by_formula(q: Tensor, k: Tensor, n: int, m: int, config: XPosConfig, width: int) -> float:
    """The sum over pairs of the real part of q · conj(k) · zeta^((n - m) / base) · e^(i · (n - m) · frequency)."""
    total = float(q[width:] @ k[width:])
    for pair in range(width // 2):
        i, j = (pair, pair + width // 2) if config.layout == "half" else (2 * pair, 2 * pair + 1)
        zeta = (2 * pair / width + config.gamma) / (1 + config.gamma)
        turn = cmath.exp(1j * (n - m) * config.theta ** (-2 * pair / width))
        product = complex(q[i], q[j]) * complex(k[i], k[j]).conjugate() * turn
        total += product.real * zeta ** ((n - m) / config.scale_base)
    return total


@pytest.mark.parametrize("start", [0, 1000, 60_000])
@pytest.mark.parametrize("layout", ["half", "interleaved"])
@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_scores_follow_the_formula_wherever_they_stand(start: int, layout: Layout, fraction: float) -> None:
    config = XPosConfig(layout=layout, fraction=fraction, scale_base=20.0, theta=50.0)
    position = XPos(config, head_dim=8)
    queries, keys = Span.run(start + 30, 4, CPU), Span.run(start, 34, CPU)
    q, k = torch.randn(1, 1, 4, 8), torch.randn(1, 1, 34, 8)
    scores = met(position, q, k, queries, keys)
    for t, s in itertools.product(range(4), range(34)):
        if s > 30 + t:
            continue
        expected = score_by_formula(q[0, 0, t], k[0, 0, s], 30 + t, s, config, int(8 * fraction))
        assert scores[0, 0, t, s].item() == pytest.approx(expected, abs=0.05 if start else 1e-4)


def test_far_keys_fade_to_nothing_and_never_to_infinity() -> None:
    position = XPos(XPosConfig(), head_dim=8)
    queries, keys = Span.run(10**6, 3, CPU), Span(torch.tensor([[0, 5 * 10**5, 10**6, 10**6 + 1]]))
    q, k = position.meet(torch.ones(1, 1, 3, 8), torch.ones(1, 1, 4, 8), queries, keys)
    assert q.isfinite().all()
    assert k.isfinite().all()
    assert k[0, 0, 0, 0] == 0
    assert k[0, 0, 2, 0] > 0.9


def test_documents_that_stand_far_apart_do_not_spoil_each_other() -> None:
    """One goes on at a million, the next begins at 0, in one call; what is hidden from a query stays finite."""
    position = XPos(XPosConfig(scale_base=20.0), head_dim=8)
    queries = Span(torch.tensor([[10**6, 10**6 + 1, 0, 1]]), torch.tensor([[3, 3, 4, 4]]))
    keys = Span(torch.tensor([[5, 10**6 - 1, 10**6, 10**6 + 1, 0, 1]]), torch.tensor([[2, 3, 3, 3, 4, 4]]))
    q, k = torch.randn(1, 1, 4, 8), torch.randn(1, 1, 6, 8)
    q_met, k_met = position.meet(q, k, queries, keys)
    scores = q_met @ k_met.mT
    assert scores.isfinite().all()
    near = Span.run(0, 2, CPU)
    alone = position.meet(q[:, :, 2:], k[:, :, 4:], near, near)
    assert_close(scores[..., 2:, 4:], alone[0] @ alone[1].mT)
    far = position.meet(q[:, :, :2], k[:, :, 1:4], Span.run(5, 2, CPU), Span.run(4, 3, CPU))
    assert_close(scores[..., :2, 1:4], far[0] @ far[1].mT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_call_too_long_for_the_numbers_is_refused(dtype: torch.dtype) -> None:
    position = XPos(XPosConfig(scale_base=1.0), head_dim=8)
    longest = {torch.float32: 70, torch.float16: 8}[dtype]
    for length in (longest, longest + 1):
        x, span = torch.ones(1, 1, length, 8, dtype=dtype), Span.run(0, length, CPU)
        if length > longest:
            with pytest.raises(GenerationError, match=f"fades too fast for {length} tokens in one call; {longest} are"):
                position.meet(x, x, span, span)
        else:
            q, k = position.meet(x, x, span, span)
            assert q.dtype == k.dtype == dtype
            assert (q @ k.mT).isfinite().all()


def test_a_packed_row_has_the_scores_its_documents_have_alone() -> None:
    position = XPos(XPosConfig(scale_base=2.0), head_dim=8)
    span = place_documents(torch.tensor([[0, 0, 0, 1, 1]]))
    q, k = torch.randn(1, 2, 5, 8), torch.randn(1, 2, 5, 8)
    packed = met(position, q, k, span, span)
    for places in (slice(0, 3), slice(3, 5)):
        alone = Span.run(0, places.stop - places.start, CPU)
        assert_close(packed[..., places, places], met(position, q[:, :, places], k[:, :, places], alone, alone))


def test_xpos_keeps_the_invariants(check_scheme: Any) -> None:
    check_scheme({"name": "xpos", "scale_base": 3.0})


def test_an_attention_must_show_it_all_visible_keys() -> None:
    assert XPos.acts_at() == {"queries_keys", "visible_keys"}
    assert XPos.requires(XPosConfig()) == {"attention": frozenset({"queries_keys", "visible_keys"})}
