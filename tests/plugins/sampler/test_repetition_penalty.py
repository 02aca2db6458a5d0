from __future__ import annotations

import pytest
import torch
from transformers import RepetitionPenaltyLogitsProcessor

from lamina.core import History
from lamina.plugins.sampler.repetition_penalty import RepetitionPenalty, RepetitionPenaltyConfig


def test_seen_tokens_lose_whatever_their_sign_and_however_often_they_came() -> None:
    logits = torch.tensor([[2.0, -2.0, 2.0, -2.0, 0.0]])
    history = History(torch.tensor([[0, 1, 1, 1]]), torch.tensor([4]), n_generated=2)
    out = RepetitionPenalty(RepetitionPenaltyConfig(value=2.0)).forward(logits, history)
    assert out.tolist() == [[1.0, -4.0, 2.0, -2.0, 0.0]]


def test_padding_is_not_history() -> None:
    logits = torch.ones(2, 3)
    history = History(torch.tensor([[0, 0, 1], [0, 2, 1]]), torch.tensor([1, 3]))
    out = RepetitionPenalty(RepetitionPenaltyConfig(value=2.0)).forward(logits, history)
    assert out.tolist() == [[1.0, 0.5, 1.0], [0.5, 0.5, 0.5]]


@pytest.mark.parametrize("value", [0.5, 1.0, 1.3])
def test_agrees_with_transformers(value: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 30, generator=generator)
    token_ids = torch.randint(30, (4, 12), generator=generator)
    ours = RepetitionPenalty(RepetitionPenaltyConfig(value=value)).forward(
        logits, History(token_ids, torch.full((4,), 12))
    )
    assert torch.equal(ours, RepetitionPenaltyLogitsProcessor(penalty=value)(token_ids, logits))
