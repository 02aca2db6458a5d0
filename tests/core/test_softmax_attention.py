"""Every path of `attend` against the formula, written out score by score; the mask oracle against its definition."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from lamina.core import ALWAYS_DENSE, Mask, Scores, Span, attend, visible
from lamina.core.context import place_documents

CPU = torch.device("cpu")


class Window(Mask):
    """The last `window` tokens, or all of them."""

    def __init__(self, window: int | None) -> None:
        self.window = window

    @property
    def reach(self) -> int | None:
        return self.window

    @property
    def fills_reach(self) -> bool:
        return True

    @property
    def dense_up_to(self) -> float:
        return self.window or ALWAYS_DENSE

    def allowed(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
        return q_positions - k_positions < (self.window or 10**9)


class Chunks(Window):
    """Tokens of one's own chunk: reaches `window` back, yet seldom sees all of that."""

    fills_reach = False  # type: ignore[assignment]

    def allowed(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
        assert self.window
        return q_positions // self.window == k_positions // self.window


class Everywhere(Mask):
    """Sees the future too."""

    causal = False

    def allowed(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
        return torch.ones_like(k_positions, dtype=torch.bool)


def seen(mask: Mask, queries: Span, keys: Span, b: int, t: int, s: int) -> bool:
    """The definition, for one query and one key."""
    q, k = (span.positions[b % span.positions.shape[0], i] for span, i in ((queries, t), (keys, s)))
    same = queries.documents is None or keys.documents is None or queries.documents[b, t] == keys.documents[b, s]
    return bool(mask.allowed(q.view(1, 1), k.view(1, 1))) and bool(same) and (not mask.causal or bool(k <= q))


def attend_by_formula(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Mask,
    queries: Span,
    keys: Span,
    bias: Tensor | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """One query at a time, in double precision."""
    q, k, v = q.double(), k.double(), v.double()
    groups, scale = q.shape[1] // k.shape[1], q.shape[-1] ** -0.5 if scale is None else scale
    out = torch.zeros(*q.shape[:3], v.shape[-1], dtype=torch.float64)
    for b, h, t in [(b, h, t) for b in range(q.shape[0]) for h in range(q.shape[1]) for t in range(q.shape[2])]:
        weights = {}
        for s in range(k.shape[2]):
            if seen(mask, queries, keys, b, t, s):
                score = float(q[b, h, t] @ k[b, h // groups, s]) * scale
                score = softcap * math.tanh(score / softcap) if softcap else score
                weights[s] = math.exp(score + (float(bias[b % bias.shape[0], h, t, s]) if bias is not None else 0))
        total = sum(weights.values()) + (math.exp(float(sinks[h])) if sinks is not None else 0)
        for s, weight in weights.items():
            out[b, h, t] += weight / total * v[b, h // groups, s]
    return out.float()


def qkv(batch: int, kv_heads: int, groups: int, n_queries: int, n_keys: int, v_dim: int = 4) -> Sequence[Tensor]:
    """Laid out as a fused projection leaves them: heads and tokens transposed."""
    q = torch.randn(batch, n_queries, kv_heads * groups, 4).transpose(1, 2)
    k = torch.randn(batch, n_keys, kv_heads, 4).transpose(1, 2)
    v = torch.randn(batch, n_keys, kv_heads, v_dim).transpose(1, 2)
    return q, k, v


windows = st.one_of(st.none(), st.integers(1, 9))
heads = st.tuples(st.integers(1, 2), st.integers(1, 3))


@given(length=st.integers(1, 7), past=st.integers(0, 5), window=windows, heads=heads, v_dim=st.sampled_from([4, 3, 6]))
def test_a_run_of_tokens_after_a_past(
    length: int, past: int, window: int | None, heads: tuple[int, int], v_dim: int
) -> None:
    """Whole texts, chunks and single tokens: the causal kernel, the masked one and the folded one."""
    q, k, v = qkv(2, *heads, length, past + length, v_dim)
    spans = {"queries": Span.run(past, length, CPU), "keys": Span.run(0, past + length, CPU)}
    given_mask = {"mask": Window(window), **spans}
    assert_close(attend(q, k, v, **given_mask), attend_by_formula(q, k, v, **given_mask))


@given(lengths=st.lists(st.integers(1, 4), min_size=1, max_size=4), window=windows, heads=heads, data=st.data())
def test_documents_see_their_own_tokens_only(
    lengths: list[int], window: int | None, heads: tuple[int, int], data: st.DataObject
) -> None:
    ids = torch.tensor([i for i, n in enumerate(lengths) for _ in range(n)])
    keys = place_documents(torch.stack([ids, torch.zeros_like(ids)]))
    first = data.draw(st.integers(0, len(ids) - 1))
    assert keys.documents is not None
    queries = Span(keys.positions[:, first:], keys.documents[:, first:])
    q, k, v = qkv(2, *heads, len(ids) - first, len(ids))
    given_mask = {"mask": Window(window), "queries": queries, "keys": keys}
    assert_close(attend(q, k, v, **given_mask), attend_by_formula(q, k, v, **given_mask))


@given(mask=st.sampled_from([Window(3), Chunks(3)]), seen_before=st.integers(3, 9), heads=heads)
def test_one_token_over_a_full_ring(mask: Mask, seen_before: int, heads: tuple[int, int]) -> None:
    """Keys in any order and of unknown start; a mask that does not fill its reach must not take the short cut."""
    assert mask.reach
    order = torch.randperm(mask.reach)
    keys = Span((seen_before - order).unsqueeze(0))
    q, k, v = qkv(1, *heads, 1, mask.reach)
    given_mask = {"mask": mask, "queries": Span.run(seen_before, 1, CPU), "keys": keys}
    assert_close(attend(q, k, v, **given_mask), attend_by_formula(q, k, v, **given_mask))


@given(start=st.integers(0, 7), length=st.integers(1, 5), heads=heads)
def test_a_chunked_mask_later_in_the_text(start: int, length: int, heads: tuple[int, int]) -> None:
    span = Span.run(start, length, CPU)
    q, k, v = qkv(1, *heads, length, length)
    given_mask = {"mask": Chunks(5), "queries": span, "keys": span}
    assert_close(attend(q, k, v, **given_mask), attend_by_formula(q, k, v, **given_mask))


@given(length=st.integers(1, 4), past=st.integers(0, 3), heads=heads)
def test_a_mask_that_is_not_causal(length: int, past: int, heads: tuple[int, int]) -> None:
    q, k, v = qkv(2, *heads, length, past + length)
    spans = {"queries": Span.run(past, length, CPU), "keys": Span.run(0, past + length, CPU)}
    given_mask = {"mask": Everywhere(), **spans}
    assert visible(**given_mask).shape == (1, length, past + length)
    assert_close(attend(q, k, v, **given_mask), attend_by_formula(q, k, v, **given_mask))


@given(
    length=st.integers(1, 4),
    past=st.integers(0, 3),
    window=windows,
    heads=heads,
    biased=st.booleans(),
    rows=st.sampled_from([1, 2]),
    softcap=st.sampled_from([None, 0.5]),
    sunk=st.booleans(),
    scale=st.sampled_from([None, 0.7]),
)
def test_bias_softcap_sinks_and_scale(
    length: int,
    past: int,
    window: int | None,
    heads: tuple[int, int],
    biased: bool,
    rows: int,
    softcap: float | None,
    sunk: bool,
    scale: float | None,
) -> None:
    q, k, v = qkv(2, *heads, length, past + length)
    n_heads = q.shape[1]
    options = {
        "mask": Window(window),
        "queries": Span.run(past, length, CPU),
        "keys": Span.run(0, past + length, CPU),
        "bias": torch.randn(rows, n_heads, length, past + length) if biased else None,
        "softcap": softcap,
        "sinks": torch.randn(n_heads) if sunk else None,
        "scale": scale,
    }
    assert_close(attend(q, k, v, **options), attend_by_formula(q, k, v, **options))


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("biased", [False, True])
def test_half_precision_stays_half_and_near(softcap: float | None, biased: bool) -> None:
    span = Span.run(0, 5, CPU)
    q, k, v = (x.to(torch.bfloat16) for x in qkv(1, 2, 2, 5, 5))
    bias = torch.randn(1, 4, 5, 5) - 200 if biased else None  # near -200 bfloat16 knows whole numbers only
    options = {"mask": Window(3), "queries": span, "keys": span, "bias": bias, "softcap": softcap}
    out = attend(q, k, v, **options)
    assert out.dtype == torch.bfloat16
    assert_close(out.float(), attend_by_formula(q, k, v, **options), atol=0.03, rtol=0.03)


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("biased", [False, True])
def test_gradients_are_right(softcap: float | None, biased: bool) -> None:
    span = Span.run(0, 3, CPU)
    inputs = [x.double().detach().requires_grad_() for x in qkv(1, 1, 2, 3, 3)]
    bias = torch.randn(1, 2, 3, 3, dtype=torch.float64, requires_grad=True) if biased else None

    def call(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        return attend(q, k, v, mask=Window(2), queries=span, keys=span, bias=bias, softcap=softcap)

    assert torch.autograd.gradcheck(call, (*inputs, bias))


def test_a_pattern_is_worked_out_once_for_masks_alike_and_again_for_others() -> None:
    calls = []

    class Counted(Window):
        @property
        def pattern(self) -> object:
            return self.window

        def allowed(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
            calls.append(self.window)
            return super().allowed(q_positions, k_positions)

    queries, keys = Span.run(2, 3, CPU), Span.run(0, 5, CPU)
    first, again = visible(Counted(2), queries, keys), visible(Counted(2), queries, keys)
    other, elsewhere = visible(Counted(3), queries, keys), visible(Counted(2), queries, queries)
    assert first is again
    assert calls == [2, 3, 2]
    assert not first.equal(other)
    assert elsewhere.shape == (1, 3, 3)


@pytest.mark.parametrize("asks_for_scores", [False, True])
@pytest.mark.parametrize("options", [{}, {"softcap": 0.5}, {"scale": 0.7}, {"v_dim": 3}, {"sinks": True}])
@pytest.mark.parametrize("length", [1, 3])
def test_a_bias_may_be_a_function_of_the_scores(asks_for_scores: bool, options: dict[str, float], length: int) -> None:
    """It is told the scaled scores before softcap, bias and mask; which keys are visible; the scale."""
    past, v_dim = 4, int(options.get("v_dim", 4))
    q, k, v = qkv(2, 2, 2, length, past + length, v_dim)
    given_spans = {"queries": Span.run(past, length, CPU), "keys": Span.run(0, past + length, CPU)}
    mask, scale = Window(3), options.get("scale", 0.5)
    plain = torch.einsum("bkgtd,bksd->bkgts", q.unflatten(1, (2, 2)), k).flatten(1, 2) * scale
    seen = [[s <= past + t < s + 3 for s in range(past + length)] for t in range(length)]

    def bias(scores: Scores) -> Tensor:
        assert scores.scale == scale
        assert scores.allowed.tolist() == [[seen]]
        return scores.values.sin() if asks_for_scores else q.sum(-1, keepdim=True).sin() * torch.arange(past + length)

    fixed = plain.sin() if asks_for_scores else q.sum(-1, keepdim=True).sin() * torch.arange(past + length)
    sinks = torch.randn(4) if options.get("sinks") else None
    chosen = {"mask": mask, **given_spans, "softcap": options.get("softcap"), "scale": scale, "sinks": sinks}
    assert_close(attend(q, k, v, bias=bias, **chosen), attend_by_formula(q, k, v, bias=fixed, **chosen))


def test_the_fast_kernel_is_kept_where_a_bias_asks_for_no_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    kernel = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        "lamina.core.softmax_attention.F.scaled_dot_product_attention",
        lambda *args, **kwargs: called.append(1) or kernel(*args, **kwargs),
    )
    q, k, v = qkv(1, 1, 2, 3, 3)
    span = Span.run(0, 3, CPU)
    attend(q, k, v, mask=Window(None), queries=span, keys=span, bias=lambda scores: torch.zeros(1, 2, 3, 3))
    assert len(called) == 1
    attend(q, k, v, mask=Window(None), queries=span, keys=span, bias=lambda scores: scores.values)
    assert len(called) == 1
