from __future__ import annotations

import pytest
import torch
from transformers import EpsilonLogitsWarper

from lamina.core import History
from lamina.plugins.sampler.epsilon import Epsilon, EpsilonConfig

NOTHING = History(torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, dtype=torch.int64))


@pytest.mark.parametrize("epsilon", [1e-4, 0.01, 0.2])
def test_agrees_with_transformers(epsilon: float) -> None:
    logits = 3 * torch.randn(20, 100, generator=torch.Generator().manual_seed(1))
    theirs = EpsilonLogitsWarper(epsilon=epsilon)(torch.zeros(20, 1, dtype=torch.int64), logits)
    assert torch.equal(Epsilon(EpsilonConfig(epsilon=epsilon)).forward(logits, NOTHING), theirs)
    assert (theirs == -torch.inf).any()


def test_keeps_the_most_likely_token_below_the_threshold() -> None:
    logits = torch.tensor([[0.0, 0.1, 0.0]])
    assert (Epsilon(EpsilonConfig(epsilon=0.9)).forward(logits, NOTHING) > -torch.inf).tolist() == [
        [False, True, False]
    ]
