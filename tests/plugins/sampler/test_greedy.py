from __future__ import annotations

import torch

from lamina.core import History
from lamina.plugins.sampler.greedy import GreedySampler

NOTHING = History(torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, dtype=torch.int64))


def test_only_the_argmax_keeps_its_logit() -> None:
    logits = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    out = GreedySampler().forward(logits, NOTHING)
    assert torch.equal(out.amax(-1), logits.amax(-1))
    assert torch.equal(out.softmax(-1), torch.nn.functional.one_hot(logits.argmax(-1), 40).float())


def test_one_token_stays_where_several_tie() -> None:
    assert (GreedySampler().forward(torch.zeros(2, 4), NOTHING) > -torch.inf).sum(-1).tolist() == [1, 1]
