"""Histories, short to write."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from lamina.core import History


def history_of(rows: list[list[int]], n_generated: int = 0) -> History:
    """Rows of any lengths, padded on the left."""
    longest = max(map(len, rows))
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
    return History(ids, torch.tensor([len(row) for row in rows]), n_generated)


@pytest.fixture
def told() -> Callable[..., History]:
    return history_of
