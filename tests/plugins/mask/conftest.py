"""What every mask is held to: its pattern key by key, and that what it says of itself is true."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lamina.core import Mask, Span, visible
from lamina.core.context import place_documents

CPU = torch.device("cpu")
Check = Callable[..., None]


def seen(mask: Mask, length: int) -> Tensor:
    """bool (T, S) for one document"""
    span = Span.run(0, length, CPU)
    return visible(mask, span, span)[0]


@pytest.fixture(scope="session")
def follows() -> Check:
    """`rule(q, k)` says whether token q sees token k; the mask must agree, packed with others or not."""

    def check(mask: Mask, rule: Callable[[int, int], bool], length: int = 17) -> None:
        expected = torch.tensor([[rule(q, k) for k in range(length)] for q in range(length)])
        assert expected.diagonal().all(), "every token sees itself"
        assert seen(mask, length).equal(expected)
        cut = length // 3
        packed = place_documents((torch.arange(length) >= cut).long().unsqueeze(0))
        rows = torch.zeros(length, length, dtype=torch.bool)
        rows[:cut, :cut], rows[cut:, cut:] = expected[:cut, :cut], expected[: length - cut, : length - cut]
        assert visible(mask, packed, packed)[0].equal(rows)

    return check


@pytest.fixture(scope="session")
def keeps_its_word() -> Check:
    """Reach, filling, density, lookahead and pattern, each as tight as it can be told."""

    def check(mask: Mask, same: Mask, *others: Mask, length: int = 40) -> None:
        allowed = seen(mask, length)
        q, k = torch.arange(length).unsqueeze(1), torch.arange(length)
        past = k <= q
        ahead = (allowed & ~past).nonzero()
        assert mask.causal <= (len(ahead) == 0)
        assert min(mask.lookahead, length) == (int(ahead.max()) + 1 if len(ahead) else 0)
        distance = (q - k)[allowed & past]
        assert mask.reach is None or mask.reach == int(distance.max()) + 1
        full = [bool((allowed | ~past)[t, max(0, t - (mask.reach or length) + 1) :].all()) for t in range(length)]
        assert mask.fills_reach <= all(full)
        if mask.reach is not None:
            assert mask.fills_reach == all(full)
        dense = [bool((allowed | ~past)[:n, :n].all()) for n in range(length + 1)]
        assert min(mask.dense_up_to, length) == max(n for n, all_seen in enumerate(dense) if all_seen)
        assert mask.pattern == same.pattern
        assert hash(mask.pattern) == hash(same.pattern)
        assert all(mask.pattern != other.pattern for other in others)

    return check
