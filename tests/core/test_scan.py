"""Chunked recurrences against the same written as a loop over tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from lamina.core import Span, delta_scan, diagonal_scan, linear_scan, scan
from lamina.core.context import place_documents

CPU = torch.device("cpu")
SCANS = ["linear", "delta", "linear of channels", "delta of channels"]


def by_loop(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, positions: Tensor, state: Tensor, beta: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Token by token, head by head."""
    batch, n_heads, length, _ = v.shape
    rows = []
    for b in range(batch):
        heads = []
        for h in range(n_heads):
            group, s, outputs = h * k.shape[1] // n_heads, state[b, h], []
            for t in range(length):
                q_t, k_t, v_t = q[b, group, t], k[b, group, t], v[b, h, t]
                fade = log_decay[b, h, t].exp()  # one number, or one for each channel
                s = s * 0 if positions[b, t] == 0 else s * (fade if fade.dim() == 0 else fade.unsqueeze(-1))
                s = s + torch.outer(k_t, v_t if beta is None else beta[b, h, t] * (v_t - s.T @ k_t))
                outputs.append(s.T @ q_t)
            heads.append((torch.stack(outputs), s))
        rows.append([torch.stack(part) for part in zip(*heads, strict=True)])
    y, last = (torch.stack(part) for part in zip(*rows, strict=True))
    return y, last


def inputs(
    kind: str, length: int, groups: int = 2, n_heads: int = 4, dtype: torch.dtype = torch.float64
) -> dict[str, Tensor]:
    channels = (3,) if kind.endswith("channels") else ()
    return {
        "q": torch.randn(2, groups, length, 3, dtype=dtype),
        "k": F.normalize(torch.randn(2, groups, length, 3, dtype=dtype), dim=-1),
        "v": torch.randn(2, n_heads, length, 5, dtype=dtype),
        "log_decay": -torch.rand(2, n_heads, length, *channels, dtype=dtype) * 2,
        "state": torch.randn(2, n_heads, 3, 5, dtype=dtype),
        "beta": torch.rand(2, n_heads, length, dtype=dtype) * 2,
    }


def run(kind: str, queries: Span, **tensors: Any) -> tuple[Tensor, Tensor]:
    if kind.startswith("linear"):
        tensors.pop("beta")
        return linear_scan(queries=queries, **tensors)
    return delta_scan(queries=queries, **tensors)


def expected(kind: str, queries: Span, **tensors: Any) -> tuple[Tensor, Tensor]:
    positions = queries.positions.expand(2, -1)
    return by_loop(positions=positions, **{**tensors, "beta": None if kind.startswith("linear") else tensors["beta"]})


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lamina.core.scan.CHUNK", 4)
    monkeypatch.setattr("lamina.core.scan.BLOCK", 2)


@pytest.mark.parametrize("kind", SCANS)
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("length", [1, 3, 4, 11])
def test_chunks_give_what_the_loop_gives(kind: str, groups: int, length: int) -> None:
    tensors, queries = inputs(kind, length, groups), Span.run(7, length, CPU)
    assert_close(run(kind, queries, **tensors), expected(kind, queries, **tensors))


@pytest.mark.parametrize("kind", SCANS)
@pytest.mark.parametrize("length", [1, 6])
def test_without_decay_and_state_the_recurrence_is_a_running_sum_from_nothing(kind: str, length: int) -> None:
    tensors, queries = inputs(kind, length), Span.run(0, length, CPU)
    zeros = {"log_decay": tensors["log_decay"] * 0, "state": tensors["state"] * 0}
    found = run(kind, queries, **{**tensors, "log_decay": None, "state": None})
    assert_close(found, expected(kind, queries, **{**tensors, **zeros}))


@pytest.mark.parametrize("kind", SCANS)
@pytest.mark.parametrize("length", [1, 6])
def test_a_decay_may_be_the_same_for_all_tokens_and_rows(kind: str, length: int) -> None:
    tensors, queries = inputs(kind, length), Span.run(3, length, CPU)
    whole = tensors["log_decay"]
    tensors["log_decay"] = whole[:1, :, :1]
    spread = {**tensors, "log_decay": tensors["log_decay"].expand_as(whole)}
    assert_close(run(kind, queries, **tensors), expected(kind, queries, **spread))


@settings(max_examples=40)
@given(kind=st.sampled_from(SCANS), split=st.lists(st.integers(1, 6), min_size=1, max_size=4), data=st.data())
def test_a_state_carried_over_calls_is_emptied_where_a_document_begins(
    kind: str, split: list[int], data: st.DataObject
) -> None:
    length = sum(split)
    row = st.lists(st.integers(0, 1), min_size=length, max_size=length)
    queries = place_documents(torch.tensor([data.draw(row), data.draw(row)]))
    tensors = inputs(kind, length)
    y, last = expected(kind, queries, **tensors)
    state, start, found = tensors["state"], 0, []
    assert queries.documents is not None
    for new in split:
        here = slice(start, start + new)
        span = Span(queries.positions[:, here], queries.documents[:, here])
        part = {name: x[:, :, here] for name, x in tensors.items() if name != "state"}
        out, state = run(kind, span, **part, state=state)
        found.append(out)
        start += new
    assert_close(torch.cat(found, 2), y)
    assert_close(state, last)


@pytest.mark.parametrize("kind", SCANS)
def test_gradients_are_right_over_chunks_and_documents(kind: str) -> None:
    tensors = {name: x[:1, :1].clone().requires_grad_() for name, x in inputs(kind, 6).items()}
    queries = place_documents(torch.tensor([[0, 0, 1, 1, 1, 1]]))
    names, values = list(tensors), tuple(tensors.values())
    if kind.startswith("linear"):
        names, values = names[:-1], values[:-1]

    def function(*given: Tensor) -> tuple[Tensor, Tensor]:
        return run(kind, queries, **{"beta": None, **dict(zip(names, given, strict=True))})

    assert torch.autograd.gradcheck(function, values)


@pytest.mark.parametrize("kind", SCANS)
def test_the_strongest_decay_and_equal_keys_leave_finite_numbers(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lamina.core.scan.CHUNK", scan.CHUNK * 16)
    monkeypatch.setattr("lamina.core.scan.BLOCK", scan.BLOCK * 8)
    tensors = inputs(kind, 130, dtype=torch.float32)
    tensors["log_decay"] = torch.where(torch.rand_like(tensors["log_decay"]) < 0.3, -1000.0, 0.0).requires_grad_()
    tensors["k"] = tensors["k"][:, :, :1].expand(-1, -1, 130, -1)
    tensors["beta"] = torch.ones(2, 4, 130)
    y, state = run(kind, Span.run(7, 130, CPU), **tensors)
    (y.sum() + state.sum()).backward()
    assert tensors["log_decay"].grad is not None
    assert tensors["log_decay"].grad.isfinite().all()
    exact = {name: x.detach().double() for name, x in tensors.items()}
    assert_close(y.double(), expected(kind, Span.run(7, 130, CPU), **exact)[0], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("kind", SCANS)
def test_half_precision_inputs_keep_a_float32_state_whatever_autocast_says(kind: str) -> None:
    tensors = {name: x.bfloat16() for name, x in inputs(kind, 9).items()}
    tensors["state"] = tensors["state"].float()
    queries = Span.run(0, 9, CPU)
    y, state = run(kind, queries, **tensors)
    assert y.dtype == state.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(run(kind, queries, **tensors), (y, state), atol=0, rtol=0)


@pytest.mark.parametrize("kind", ["delta", "delta of channels"])
def test_products_are_counted_the_triangular_system_among_them(kind: str) -> None:
    length, chunk, width, columns = 8, 4, 3, 5
    tensors = {name: x[:1, :1].float().to("meta") for name, x in inputs(kind, length, 1, 1).items()}
    with FlopCounterMode(display=False) as counter:
        run(kind, Span.run(0, length, torch.device("meta")), **tensors)
    scores = 2 * (2 * length * chunk * width)
    if kind.endswith("channels"):  # blocks of two see no later block
        scores = scores * 3 // 4
    solve = length * chunk * (columns + width)
    states = length * 2 * (2 * width * columns + width * columns + chunk * columns)
    assert counter.get_total_flops() == scores + solve + states


def diagonal_by_loop(decay: Tensor, added: Tensor, queries: Span, state: Tensor) -> tuple[Tensor, Tensor]:
    rows = []
    for b in range(added.shape[0]):
        h = state[b]
        for t in range(added.shape[1]):
            begins = queries.documents is not None and queries.positions[b, t] == 0
            h = added[b, t] + (0 if begins else decay[b, t] * h)
            rows.append(h)
    y = torch.stack(rows).view_as(added)
    return y, y[:, -1]


@settings(max_examples=40)
@given(split=st.lists(st.integers(1, 12), min_size=1, max_size=3), documents=st.booleans(), data=st.data())
def test_every_number_of_a_state_may_fade_at_its_own_pace(
    split: list[int], documents: bool, data: st.DataObject
) -> None:
    length = sum(split)
    row = st.lists(st.integers(0, 1), min_size=length, max_size=length)
    queries = place_documents(torch.tensor([data.draw(row), data.draw(row)])) if documents else Span.run(5, length, CPU)
    decay, added = torch.rand(2, length, 3, 2), torch.randn(2, length, 3, 2)
    decay[decay < 0.2] = 0.0
    state = first = torch.randn(2, 3, 2)
    found, start = [], 0
    for new in split:
        here = slice(start, start + new)
        span = Span(queries.positions[:, here], None if queries.documents is None else queries.documents[:, here])
        h, state = diagonal_scan(decay[:, here], added[:, here], span, state)
        found.append(h)
        start += new
    expected, last = diagonal_by_loop(decay, added, queries, first)
    assert_close(torch.cat(found, 1), expected)
    assert_close(state, last)


@pytest.mark.parametrize("length", [1, 2, 7])
def test_gradients_of_the_diagonal_recurrence_are_right(length: int) -> None:
    shape = (2, length, 3)
    decay = torch.rand(shape, dtype=torch.float64)
    decay[0, 0, 0] = decay[1, -1, 1] = 0.0  # no product may be divided by
    added, state = torch.randn(shape, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    queries = place_documents(torch.tensor([[0] * length, [0] + [1] * (length - 1)]))
    given = tuple(tensor.requires_grad_() for tensor in (decay, added, state))
    assert torch.autograd.gradcheck(lambda a, b, s: diagonal_scan(a, b, queries, s), given)
