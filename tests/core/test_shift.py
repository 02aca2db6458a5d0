"""The token shift."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.testing import assert_close

from lamina.core import Span, token_shift
from lamina.core.context import place_documents

CPU = torch.device("cpu")


def by_hand(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows).unsqueeze(-1)


def test_every_token_gets_the_one_before_it_and_the_first_gets_zero() -> None:
    x = by_hand([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert_close(token_shift(x, Span.run(0, 3, CPU)), by_hand([[0.0, 1.0, 2.0], [0.0, 4.0, 5.0]]))


def test_the_first_token_of_a_later_call_gets_the_last_of_the_call_before() -> None:
    x, last = by_hand([[1.0, 2.0]]), torch.tensor([[9.0]])
    assert_close(token_shift(x, Span.run(3, 2, CPU), last), by_hand([[9.0, 1.0]]))


def test_the_first_token_of_a_document_gets_zero_from_the_cache_too() -> None:
    x, last = by_hand([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), torch.tensor([[8.0], [9.0]])
    span = place_documents(torch.tensor([[1, 1, 2], [3, 3, 3]]), *(torch.tensor([[value]] * 2) for value in (1, 0, 5)))
    assert_close(token_shift(x, span, last), by_hand([[8.0, 1.0, 0.0], [0.0, 4.0, 5.0]]))
