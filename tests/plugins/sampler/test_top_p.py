from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from transformers import TopPLogitsWarper

from lamina.core import History
from lamina.plugins.sampler.top_p import TopP, TopPConfig

NOTHING = History(torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, dtype=torch.int64))


def kept(logits: torch.Tensor, p: float) -> torch.Tensor:
    return TopP(TopPConfig(p=p)).forward(logits, NOTHING) > -torch.inf


@given(weights=st.lists(st.integers(1, 1000), min_size=1, max_size=10, unique=True), percent=st.integers(1, 99))
@settings(max_examples=200, deadline=None)
def test_keeps_the_smallest_set_that_reaches_p(weights: list[int], percent: int) -> None:
    share = percent / 100 + 1e-4  # clear of every sum of weights that rounding could tip, but for a few
    needed, reached = 0, 0
    for weight in sorted(weights, reverse=True):
        if reached / sum(weights) >= share:
            break
        if abs(reached / sum(weights) - share) < 1e-5:
            return
        needed, reached = needed + 1, reached + weight
    mask = kept(torch.tensor([weights]).float().log(), share)[0]
    assert mask.sum() == max(needed, 1)
    assert sorted(torch.tensor(weights)[mask].tolist()) == sorted(weights)[-max(needed, 1) :]


def test_keeps_one_token_however_small_p_is() -> None:
    assert kept(torch.zeros(1, 5), 1e-6).sum() == 1


def test_a_set_that_reaches_p_exactly_is_enough() -> None:
    assert kept(torch.zeros(1, 4), 0.5).sum() == 2


def test_sets_of_thousands_are_kept_whole_whatever_the_rows_beside_them() -> None:
    logits = torch.randn(3, 5000, generator=torch.Generator().manual_seed(0)) * torch.tensor([[0.1], [1.0], [20.0]])
    mask = kept(logits, 0.9)
    for row in range(3):
        likely = logits[row].double().softmax(-1).sort(descending=True).values
        needed = int((likely.cumsum(0) < 0.9).sum()) + 1
        assert abs(int(mask[row].sum()) - needed) <= 1  # a sum of thousands of float32 may be off by one token
        assert torch.equal(mask[row], kept(logits[row : row + 1], 0.9)[0])
    assert mask[0].sum() > 4000
    assert mask[2].sum() < 100


def test_p_of_one_keeps_tokens_too_rare_to_change_the_sum() -> None:
    assert kept(torch.tensor([[0.0, -50.0, -60.0]]), 1.0).all()


def test_kept_logits_are_unchanged() -> None:
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    out = TopP(TopPConfig(p=0.8)).forward(logits, NOTHING)
    assert torch.equal(out[out > -torch.inf], logits[out > -torch.inf])


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9, 0.99])
def test_agrees_with_transformers(p: float) -> None:
    logits = 3 * torch.randn(20, 100, generator=torch.Generator().manual_seed(1))
    theirs = TopPLogitsWarper(top_p=p)(torch.zeros(20, 1, dtype=torch.int64), logits)
    assert torch.equal(TopP(TopPConfig(p=p)).forward(logits, NOTHING), theirs)


@pytest.mark.parametrize("p", [0.0, -0.1, 1.1])
def test_p_outside_its_range_is_refused(p: float) -> None:
    with pytest.raises(ValidationError, match=r"p\n.*(greater|less) than"):
        TopPConfig(p=p)
