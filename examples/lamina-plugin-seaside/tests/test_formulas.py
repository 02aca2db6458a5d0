"""The parts against their formulas, written out as loops."""

from __future__ import annotations

import math

import pytest
import torch
from lamina_plugin_seaside.sandwich import Sandwich, SandwichConfig
from lamina_plugin_seaside.snake import Snake, SnakeConfig
from lamina_plugin_seaside.tail_free import TailFree, TailFreeConfig

from lamina.core import History, Span


def test_snake() -> None:
    numbers = [-3.0, -0.2, 0.0, 0.7, 5.0]
    got = Snake(SnakeConfig(frequency=2.0))(torch.tensor(numbers, dtype=torch.float64))
    assert got.tolist() == pytest.approx([x + math.sin(2 * x) ** 2 / 2 for x in numbers])


def test_sandwich_is_the_product_of_sinusoidal_embeddings() -> None:
    width, n_heads, length = 8, 4, 6

    def embedding(position: int) -> list[float]:
        angles = [position / 10_000 ** (2 * i / width) for i in range(1, width // 2 + 1)]
        return [math.sin(a) for a in angles] + [math.cos(a) for a in angles]

    span = Span.run(0, length, torch.device("cpu"))
    got = Sandwich(SandwichConfig(width=width), n_heads).bias(torch.empty(0), span, span)
    for head in range(n_heads):
        for query in range(length):
            for key in range(length):
                product = sum(a * b for a, b in zip(embedding(query), embedding(key), strict=True))
                expected = (product - width / 2) * n_heads / (8 * (head + 1))
                assert got[0, head, query, key].item() == pytest.approx(expected, abs=1e-5)


def test_tail_free_cuts_where_the_curve_is_flat() -> None:
    p = [0.5, 0.3, 0.1, 0.04, 0.03, 0.03]
    second = [abs((p[i + 2] - p[i + 1]) - (p[i + 1] - p[i])) for i in range(4)]
    running = [sum(second[: i + 1]) / sum(second) for i in range(4)]
    kept = [0, 1] + [i + 2 for i in range(4) if running[i] <= 0.9]
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    logits = torch.tensor(p).log()[order].unsqueeze(0)
    history = History(torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, dtype=torch.int64))
    got = TailFree(TailFreeConfig(z=0.9)).forward(logits, history)
    assert sorted(order[i].item() for i in got[0].isfinite().nonzero().flatten().tolist()) == kept
    assert TailFree(TailFreeConfig(z=1.0)).forward(logits, history) is logits
