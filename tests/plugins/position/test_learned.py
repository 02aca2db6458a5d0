"""Learned positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from lamina.core import Context, GenerationError, Span
from lamina.plugins.position.learned import Learned, LearnedConfig


def learned(size: int, offset: int = 0) -> Learned:
    position = Learned(LearnedConfig(size=size, offset=offset), dim=4)
    torch.nn.init.normal_(position.table.weight)
    return position


@pytest.mark.parametrize("offset", [0, 2])
def test_each_token_gets_the_row_of_its_position(context_at: Callable[..., Context], offset: int) -> None:
    position, x = learned(6, offset), torch.randn(2, 3, 4)
    places = [[3, 4, 5], [0, 1, 0]]
    expected = x.clone()
    for row, column in [(r, c) for r in range(2) for c in range(3)]:
        expected[row, column] += position.table.weight[places[row][column] + offset]
    assert_close(position.embed(x, context_at(places)), expected)


def test_the_table_is_as_long_as_the_context_unless_a_size_is_given() -> None:
    assert LearnedConfig().derive(context_length=9) == {"size": 9}
    assert LearnedConfig(size=5).derive(context_length=9) == {}
    assert learned(5, offset=2).table.weight.shape == (7, 4)


def test_a_token_past_the_table_is_refused_by_name(context_at: Callable[..., Context]) -> None:
    position = learned(6, offset=2)
    run = Context(torch.zeros(1, 3, dtype=torch.int64), Span.run(4, 3, torch.device("cpu")))
    for context in (run, context_at([[4, 5, 6]])):
        with pytest.raises(GenerationError, match="a text of 7 tokens is longer than the 6 positions"):
            position.embed(torch.randn(1, 3, 4), context)
    last = Context(torch.zeros(1, 3, dtype=torch.int64), Span.run(3, 3, torch.device("cpu")))
    assert position.embed(torch.randn(1, 3, 4), last).shape == (1, 3, 4)


def test_learned_acts_on_embeddings_alone() -> None:
    assert Learned.acts_at() == {"embeddings"}
    assert Learned.requires(LearnedConfig()) == {"attention": frozenset()}


def test_learned_keeps_the_invariants(check_scheme: Any) -> None:
    check_scheme({"name": "learned", "offset": 2})
