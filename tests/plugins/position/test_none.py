"""No position."""

from __future__ import annotations

import torch

from lamina.core import Context, Span
from lamina.plugins.position.none import NoPosition


def test_none_acts_nowhere_and_asks_for_nothing() -> None:
    position, span = NoPosition(), Span.run(0, 3, torch.device("cpu"))
    context, x = Context(torch.zeros(1, 3, dtype=torch.int64), span), torch.randn(1, 2, 3, 4)
    assert position.acts_at() == frozenset()
    assert not any(NoPosition.requires(None).values())
    assert position.embed(x, context) is x
    assert position.rotate(x, x, context) == (x, x)
    assert position.bias(x, span, span) is None
