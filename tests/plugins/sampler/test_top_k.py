from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from transformers import TopKLogitsWarper

from lamina.core import History
from lamina.plugins.sampler.top_k import TopK, TopKConfig

NOTHING = History(torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, dtype=torch.int64))


@pytest.mark.parametrize("k", [1, 3, 99, 100])
def test_keeps_the_k_highest_logits_as_they_are(k: int) -> None:
    logits = torch.randn(4, 100, generator=torch.Generator().manual_seed(k))
    out = TopK(TopKConfig(k=k)).forward(logits, NOTHING)
    for before, after in zip(logits.tolist(), out.tolist(), strict=True):
        kth = sorted(before, reverse=True)[k - 1]
        assert after == [value if value >= kth else -torch.inf for value in before]


def test_tokens_that_tie_with_the_kth_stay() -> None:
    out = TopK(TopKConfig(k=2)).forward(torch.tensor([[1.0, 3.0, 1.0, 0.0]]), NOTHING)
    assert (out > -torch.inf).tolist() == [[True, True, True, False]]


def test_k_beyond_the_vocabulary_keeps_all() -> None:
    logits = torch.tensor([[1.0, 2.0, -torch.inf]])
    assert torch.equal(TopK(TopKConfig(k=1000)).forward(logits, NOTHING), logits)


@pytest.mark.parametrize("k", [1, 7, 50])
def test_agrees_with_transformers(k: int) -> None:
    logits = torch.randn(10, 50, generator=torch.Generator().manual_seed(k))
    theirs = TopKLogitsWarper(top_k=k)(torch.zeros(10, 1, dtype=torch.int64), logits)
    assert torch.equal(TopK(TopKConfig(k=k)).forward(logits, NOTHING), theirs)


def test_k_of_zero_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"k\n.*greater than or equal to 1"):
        TopKConfig(k=0)
