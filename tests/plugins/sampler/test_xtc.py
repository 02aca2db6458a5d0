from __future__ import annotations

import copy

import pytest
import torch

from lamina.core import History
from lamina.plugins.sampler.xtc import XTC, XTCConfig

NOTHING = History(torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, dtype=torch.int64))


def stage(rows: int = 1, **options: float) -> XTC:
    return XTC(XTCConfig(**options), [torch.Generator().manual_seed(seed) for seed in range(rows)])


@pytest.mark.parametrize("threshold", [0.02, 0.1, 0.3, 0.6])
def test_removes_all_top_choices_but_the_least_likely(threshold: float) -> None:
    logits = 2 * torch.randn(30, 20, generator=torch.Generator().manual_seed(0))
    out = stage(30, threshold=threshold, probability=1.0).forward(logits, NOTHING)
    for row, p in enumerate(logits.softmax(-1).tolist()):
        top = sorted((share, token) for token, share in enumerate(p) if share >= threshold)
        gone = {token for _, token in top[1:]}
        assert set((out[row] == -torch.inf).nonzero().flatten().tolist()) == gone
    assert torch.equal(out[out > -torch.inf], logits[out > -torch.inf])


def test_acts_as_often_as_it_is_told() -> None:
    one, logits = stage(probability=0.3), torch.zeros(1, 4)
    acted = sum(bool((one.forward(logits, NOTHING) == -torch.inf).any()) for _ in range(2000))
    assert abs(acted - 600) < 5 * (2000 * 0.3 * 0.7) ** 0.5
    assert not (stage(probability=0.0).forward(logits, NOTHING) == -torch.inf).any()


def test_a_row_draws_from_its_own_generator_wherever_it_stands() -> None:
    logits = torch.zeros(3, 4)
    whole = stage(3)
    first = [(whole.forward(logits, NOTHING) == -torch.inf).any(-1).tolist() for _ in range(10)]
    whole.reorder(torch.tensor([2, 0, 0]))
    other = copy.deepcopy(whole)
    then = [(whole.forward(logits, NOTHING) == -torch.inf).any(-1).tolist() for _ in range(30)]
    again = [(other.forward(logits, NOTHING) == -torch.inf).any(-1).tolist() for _ in range(30)]
    assert then == again
    for row, seed in enumerate((2, 0, 0)):
        alone = XTC(XTCConfig(), [torch.Generator().manual_seed(seed)])
        drawn = [bool((alone.forward(logits[:1], NOTHING) == -torch.inf).any()) for _ in range(40)]
        assert drawn == [one[seed] for one in first] + [one[row] for one in then]
    assert len({tuple(one) for one in first}) > 2
