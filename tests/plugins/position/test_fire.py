"""FIRE against its formula, pair by pair."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from lamina.core import Span
from lamina.plugins.position.fire import FIRE, FIREConfig


def fire(threshold: float = 4.0) -> FIRE:
    position = FIRE(FIREConfig(hidden_dim=5, threshold=threshold, c=0.3), n_heads=2)
    torch.nn.init.normal_(position.outer_bias)
    return position


def test_the_bias_follows_its_formula() -> None:
    position = fire()
    with torch.no_grad():
        position.threshold.fill_(1.5)  # in units of 4: six positions
    queries, keys = Span(torch.tensor([[9, 2], [0, 5]])), Span(torch.tensor([[1, 9, 2], [0, 3, 5]]))
    bias = position.bias(torch.zeros(1), queries, keys)
    assert bias.shape == (2, 2, 2, 3)
    c = position.c.item()
    for b, h, t, s in [(b, h, t, s) for b in range(2) for h in range(2) for t in range(2) for s in range(3)]:
        place = int(queries.positions[b, t])
        distance = abs(place - int(keys.positions[b, s]))
        share = math.log(c * distance + 1) / math.log(c * max(6.0, place) + 1)
        hidden = [
            max(0.0, share * w + z) for w, z in zip(position.inner.tolist(), position.inner_bias.tolist(), strict=True)
        ]
        expected = sum(w * x for w, x in zip(position.outer[h].tolist(), hidden, strict=True))
        assert bias[b, h, t, s].item() == pytest.approx(expected + position.outer_bias[h].item(), abs=1e-4)


def test_beyond_the_threshold_what_counts_is_the_share_of_the_way() -> None:
    """The farthest key of any text looks alike to the network, however long the text."""
    position = fire(threshold=4.0)
    keys = Span.run(0, 1, torch.device("cpu"))
    ends = [position.bias(torch.zeros(1), Span.run(n, 1, torch.device("cpu")), keys) for n in (10, 1000, 10**6)]
    assert torch.allclose(ends[0], ends[1], atol=1e-4)
    assert torch.allclose(ends[0], ends[2], atol=1e-4)


def test_gradients_are_right() -> None:
    position = fire().double()

    def biases(*_: Any) -> torch.Tensor:
        return position.bias(torch.zeros(1), Span.run(2, 6, torch.device("cpu")), Span.run(0, 8, torch.device("cpu")))

    assert torch.autograd.gradcheck(biases, tuple(position.parameters()))


def test_fire_keeps_the_invariants(check_scheme: Any) -> None:
    check_scheme({"name": "fire", "hidden_dim": 6, "threshold": 3.0})


def test_each_layer_has_a_network_of_its_own_unless_told_otherwise(decoder_with: Any) -> None:
    for shared in (False, True):
        decoder = decoder_with({"name": "fire", "shared": shared})
        first, second = (layer.attention.position for layer in decoder.layers)
        assert (first is second) == shared
