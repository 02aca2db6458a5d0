"""CoPE against the paper's formula, key by key."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lamina.core import Mask, Span, attend
from lamina.core.context import place_documents
from lamina.plugins.mask.causal import Causal
from lamina.plugins.mask.sliding import Sliding, SlidingConfig
from lamina.plugins.position.cope import CoPE, CoPEConfig


def cope(n_positions: int = 3) -> CoPE:
    position = CoPE(CoPEConfig(n_positions=n_positions), head_dim=4)
    torch.nn.init.normal_(position.table.weight)
    return position.requires_grad_(False)


def by_formula(table: Tensor, q: Tensor, k: Tensor, v: Tensor, seen: list[list[int]], scale: float) -> Tensor:
    """One head, one row: q (T, Dh), k and v (S, Dh); `seen[t]` are the keys query t sees, in the order they stand."""
    out = torch.zeros_like(q)
    for t, keys in enumerate(seen):
        plain = [float(q[t] @ k[s]) * scale for s in keys]
        gates = [1 / (1 + math.exp(-score)) for score in plain]
        scores = []
        for i, score in enumerate(plain):
            place = min(sum(gates[i:]), len(table) - 1)
            low, high = math.floor(place), math.ceil(place)
            vector = (place - low) * table[high] + (1 - place + low) * table[low]
            scores.append(score + float(q[t] @ vector))
        out[t] = torch.tensor(scores).softmax(0) @ v[keys]
    return out


@pytest.mark.parametrize("n_positions", [2, 3, 20])
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("scale", [None, 0.9])
def test_a_key_stands_where_the_gates_put_it(n_positions: int, window: int | None, scale: float | None) -> None:
    position, past = cope(n_positions), 4
    q, k, v = torch.randn(1, 4, 3, 4), torch.randn(1, 2, 7, 4), torch.randn(1, 2, 7, 4)
    queries, keys = Span.run(past, 3, torch.device("cpu")), Span.run(0, 7, torch.device("cpu"))
    mask: Mask = Sliding(SlidingConfig(window=window)) if window else Causal()
    bias = position.bias(q, queries, keys)
    out = attend(q, k, v, mask=mask, queries=queries, keys=keys, bias=bias, scale=scale)
    seen = [list(range(max(0, past + t + 1 - (window or 99)), past + t + 1)) for t in range(3)]
    for h in range(4):
        expected = by_formula(position.table.weight, q[0, h], k[0, h // 2], v[0, h // 2], seen, scale or 0.5)
        assert_close(out[0, h], expected)


def test_only_keys_of_the_document_are_counted() -> None:
    position, span = cope(20), place_documents(torch.tensor([[0, 0, 0, 1, 1, 1]]))
    q, k, v = torch.randn(3, 1, 1, 6, 4)
    out = attend(q, k, v, mask=Causal(), queries=span, keys=span, bias=position.bias(q, span, span))
    seen = [[0], [0, 1], [0, 1, 2], [3], [3, 4], [3, 4, 5]]
    assert_close(out[0, 0], by_formula(position.table.weight, q[0, 0], k[0, 0], v[0, 0], seen, 0.5))


def test_keys_may_lie_in_any_order() -> None:
    position, places = cope(20), torch.tensor([[4, 5, 2, 3]])  # a rolling cache of four
    queries, keys = Span.run(5, 1, torch.device("cpu")), Span(places)
    q, k, v = torch.randn(1, 2, 1, 4), torch.randn(1, 2, 4, 4), torch.randn(1, 2, 4, 4)
    window = Sliding(SlidingConfig(window=4))
    out = attend(q, k, v, mask=window, queries=queries, keys=keys, bias=position.bias(q, queries, keys))
    for h in range(2):
        expected = by_formula(position.table.weight, q[0, h], k[0, h], v[0, h], [[2, 3, 0, 1]], 0.5)
        assert_close(out[0, h], expected)


def test_gradients_are_right() -> None:
    position, span = cope(20).double().requires_grad_(), Span.run(0, 4, torch.device("cpu"))
    q, k, v = (torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))

    def call(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
        return attend(q, k, v, mask=Causal(), queries=span, keys=span, bias=position.bias(q, span, span))

    assert torch.autograd.gradcheck(call, (q, k, v, position.table.weight))


def test_cope_keeps_the_invariants(check_scheme: Any) -> None:
    check_scheme({"name": "cope", "n_positions": 4})


def test_each_layer_has_a_table_of_its_own_unless_told_otherwise(decoder_with: Any) -> None:
    for shared in (False, True):
        decoder = decoder_with({"name": "cope", "shared": shared})
        first, second = (layer.attention.position for layer in decoder.layers)
        assert (first is second) == shared
