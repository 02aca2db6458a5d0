from __future__ import annotations

import math

import pytest
import torch
from transformers import TypicalLogitsWarper

from lamina.core import History
from lamina.plugins.sampler.typical import Typical, TypicalConfig

NOTHING = History(torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, dtype=torch.int64))


def kept(logits: torch.Tensor, p: float) -> torch.Tensor:
    return Typical(TypicalConfig(p=p)).forward(logits, NOTHING) > -torch.inf


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9, 0.99])
def test_agrees_with_transformers(p: float) -> None:
    logits = 3 * torch.randn(20, 100, generator=torch.Generator().manual_seed(1))
    theirs = TypicalLogitsWarper(mass=p)(torch.zeros(20, 1, dtype=torch.int64), logits)
    assert torch.equal(Typical(TypicalConfig(p=p)).forward(logits, NOTHING), theirs)


def test_takes_tokens_by_their_distance_from_the_entropy_until_p_is_reached() -> None:
    p = [0.55, 0.25, 0.12, 0.05, 0.03]
    entropy = -sum(x * math.log(x) for x in p)
    order = sorted(range(5), key=lambda token: abs(-math.log(p[token]) - entropy))
    logits = torch.tensor([p]).log()
    for share in (0.2, 0.5, 0.8, 0.9):
        wanted, total = set(), 0.0
        for token in order:
            if total >= share:
                break
            wanted.add(token)
            total += p[token]
        assert set(kept(logits, share)[0].nonzero().flatten().tolist()) == wanted
    assert 0 not in kept(logits, 0.2)[0].nonzero()  # the likeliest surprises too little


def test_removed_tokens_neither_count_nor_come_back() -> None:
    logits = torch.tensor([[1.0, 0.5, 0.2, -0.3]])
    more = torch.tensor([[1.0, -torch.inf, 0.5, 0.2, -torch.inf, -0.3]])
    for p in (0.3, 0.7, 1.0):
        assert torch.equal(kept(more, p)[:, [0, 2, 3, 5]], kept(logits, p))
        assert not kept(more, p)[:, [1, 4]].any()
