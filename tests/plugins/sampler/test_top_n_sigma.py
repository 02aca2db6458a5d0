from __future__ import annotations

import pytest
import torch

from lamina.core import History
from lamina.plugins.sampler.top_n_sigma import TopNSigma, TopNSigmaConfig

NOTHING = History(torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, dtype=torch.int64))


def kept(logits: torch.Tensor, n: float) -> torch.Tensor:
    return TopNSigma(TopNSigmaConfig(n=n)).forward(logits, NOTHING) > -torch.inf


@pytest.mark.parametrize("n", [0.3, 1.0, 2.5])
def test_keeps_what_lies_within_n_deviations_of_the_highest(n: float) -> None:
    logits = 3 * torch.randn(20, 100, generator=torch.Generator().manual_seed(1)) + 50
    for row, mask in zip(logits.double(), kept(logits, n), strict=True):
        assert torch.equal(mask, row >= row.max() - n * row.std(correction=0))


def test_temperature_does_not_change_what_is_kept() -> None:
    logits = torch.randn(20, 100, generator=torch.Generator().manual_seed(1))
    assert torch.equal(kept(logits, 1.0), kept(logits / 7, 1.0))


def test_removed_tokens_do_not_count() -> None:
    logits = torch.randn(5, 30, generator=torch.Generator().manual_seed(1))
    more = torch.cat([logits, torch.full((5, 10), -torch.inf)], 1)
    assert torch.equal(kept(more, 1.0)[:, :30], kept(logits, 1.0))
    assert kept(torch.tensor([[-torch.inf, 2.0]]), 1.0).tolist() == [[False, True]]
