"""Shaw's relative keys against the paper's formula, key by key."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lamina.core import Span, attend
from lamina.plugins.mask.causal import Causal
from lamina.plugins.position.shaw import Shaw, ShawConfig


def shaw(**options: Any) -> Shaw:
    position = Shaw(ShawConfig(**options), head_dim=4)
    torch.nn.init.normal_(position.table.weight)
    return position


def by_formula(position: Shaw, q: Tensor, k: Tensor, v: Tensor, past: int, scale: float) -> Tensor:
    """Every key with the vector of its distance added, one query at a time."""
    out = torch.zeros_like(q)
    for h, t in [(h, t) for h in range(q.shape[1]) for t in range(q.shape[2])]:
        seen = range(past + t + 1)
        vectors = [position.table.weight[min(past + t - s, position.farthest) + position.latest] for s in seen]
        scores = torch.stack([q[0, h, t] @ (k[0, h // 2, s] + vectors[s]) * scale for s in seen])
        out[0, h, t] = scores.softmax(0) @ v[0, h // 2, : len(seen)]
    return out


@pytest.mark.parametrize("options", [{"max_distance": 3}, {"max_distance": 2, "bidirectional": True}])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_keys_get_the_vector_of_their_distance(options: dict[str, Any], scale: float | None) -> None:
    position, past = shaw(**options), 4
    q, k, v = torch.randn(1, 4, 3, 4), torch.randn(1, 2, 7, 4), torch.randn(1, 2, 7, 4)
    queries, keys = Span.run(past, 3, torch.device("cpu")), Span.run(0, 7, torch.device("cpu"))
    bias = position.bias(q, queries, keys)
    out = attend(q, k, v, mask=Causal(), queries=queries, keys=keys, bias=bias, scale=scale)
    assert_close(out, by_formula(position, q, k, v, past, scale or 0.5))


def test_later_keys_have_vectors_of_their_own_in_both_directions() -> None:
    position = shaw(max_distance=2, bidirectional=True)
    span = Span.run(0, 4, torch.device("cpu"))
    assert position._rows(span, span)[0, 0].tolist() == [[2, 1, 0, 0], [3, 2, 1, 0], [4, 3, 2, 1], [4, 4, 3, 2]]
    assert position.table.weight.shape == (5, 4)
    one_way = shaw(max_distance=2)
    assert one_way._rows(span, span)[0, 0].tolist() == [[0, 0, 0, 0], [1, 0, 0, 0], [2, 1, 0, 0], [2, 2, 1, 0]]


def test_shaw_keeps_the_invariants(check_scheme: Any) -> None:
    check_scheme({"name": "shaw", "max_distance": 3})


def test_each_layer_has_a_table_of_its_own_unless_told_otherwise(decoder_with: Any) -> None:
    for shared in (False, True):
        decoder = decoder_with({"name": "shaw", "shared": shared})
        first, second = (layer.attention.position for layer in decoder.layers)
        assert (first is second) == shared
