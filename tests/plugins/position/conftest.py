"""A pass at chosen positions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from lamina.core import Context, Span


@pytest.fixture
def context_at() -> Callable[[list[list[int]]], Context]:
    """A context whose tokens stand at these positions, one list a row, each row a document of its own making."""

    def make(positions: list[list[int]]) -> Context:
        places = torch.tensor(positions)
        return Context(torch.zeros_like(places), Span(places, torch.zeros_like(places)))

    return make
