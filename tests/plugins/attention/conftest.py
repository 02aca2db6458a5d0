"""Running one attention by itself, whole or in cached calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from lamina.core import Attention, Cache, Context, Span
from lamina.core.context import place_documents

CPU = torch.device("cpu")
Run = Callable[..., Tensor]


@pytest.fixture(scope="session")
def whole() -> Run:
    """One call over all of x (B, T, D)."""

    def run(attention: Attention, x: Tensor, document_ids: Tensor | None = None) -> Tensor:
        span = Span.run(0, x.shape[1], CPU) if document_ids is None else place_documents(document_ids)
        return attention(x, Context(torch.zeros(x.shape[:2], dtype=torch.int64), span))

    return run


@pytest.fixture(scope="session")
def in_calls() -> Run:
    """Cached calls of these lengths."""

    @torch.no_grad()
    def run(
        attention: Attention,
        x: Tensor,
        split: Sequence[int],
        document_ids: Tensor | None = None,
        before_each: Callable[[Cache], object] = lambda cache: None,
    ) -> Tensor:
        batch, length, _ = x.shape
        cache, outputs = Cache([attention.make_state(batch, length, x.dtype, CPU)], batch, length, CPU), []
        for new in split:
            before_each(cache)
            here = slice(cache.used, cache.used + new)
            ids = None if document_ids is None else document_ids[:, here]
            context = Context(torch.zeros(batch, new, dtype=torch.int64), cache.place(batch, new, ids))
            outputs.append(attention(x[:, here], context, cache.layers[0]))
            cache.advance(new)
        return torch.cat(outputs, 1)

    return run
