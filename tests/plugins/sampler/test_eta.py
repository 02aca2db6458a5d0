from __future__ import annotations

import math

import pytest
import torch
from transformers import EtaLogitsWarper

from lamina.core import History
from lamina.plugins.sampler.eta import Eta, EtaConfig

NOTHING = History(torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, dtype=torch.int64))


@pytest.mark.parametrize("epsilon", [1e-4, 0.01, 0.2])
@pytest.mark.parametrize("sharpness", [0.3, 3.0])
def test_agrees_with_transformers(epsilon: float, sharpness: float) -> None:
    logits = sharpness * torch.randn(20, 100, generator=torch.Generator().manual_seed(1))
    theirs = EtaLogitsWarper(epsilon=epsilon)(torch.zeros(20, 1, dtype=torch.int64), logits)
    assert torch.equal(Eta(EtaConfig(epsilon=epsilon)).forward(logits, NOTHING), theirs)


def test_the_threshold_is_that_of_the_formula_among_the_tokens_left() -> None:
    p, epsilon = [0.7, 0.2, 0.08, 0.02], 0.05
    eta = min(epsilon, math.sqrt(epsilon) * math.exp(sum(x * math.log(x) for x in p)))
    logits = torch.tensor([[*p, 0.0]]).log()
    out = Eta(EtaConfig(epsilon=epsilon)).forward(logits, NOTHING)
    assert (out > -torch.inf).tolist() == [[*(x >= eta for x in p), False]]
    assert 0.02 < eta < 0.08
