from __future__ import annotations

import pytest
import torch
from transformers import MinPLogitsWarper

from lamina.core import History
from lamina.plugins.sampler.min_p import MinP, MinPConfig

NOTHING = History(torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, dtype=torch.int64))


def test_keeps_what_is_at_least_p_times_as_likely_as_the_best() -> None:
    probabilities = torch.tensor([[0.6, 0.2, 0.13, 0.07]])
    out = MinP(MinPConfig(p=0.2)).forward(probabilities.log() + 5, NOTHING)  # the bar lies at 0.12
    assert (out > -torch.inf).tolist() == [[True, True, True, False]]
    assert torch.equal(out[:, :3], (probabilities.log() + 5)[:, :3])


def test_p_of_one_keeps_the_best_alone() -> None:
    out = MinP(MinPConfig(p=1.0)).forward(torch.tensor([[1.0, 2.0, 1.999]]), NOTHING)
    assert (out > -torch.inf).tolist() == [[False, True, False]]


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5])
def test_agrees_with_transformers(p: float) -> None:
    logits = 3 * torch.randn(20, 100, generator=torch.Generator().manual_seed(1))
    theirs = MinPLogitsWarper(min_p=p)(torch.zeros(20, 1, dtype=torch.int64), logits)
    assert torch.equal(MinP(MinPConfig(p=p)).forward(logits, NOTHING), theirs)
