from __future__ import annotations

import pytest
import torch
from transformers import NoRepeatNGramLogitsProcessor

from lamina.core import History
from lamina.plugins.sampler.no_repeat_ngram import NoRepeatNgram, NoRepeatNgramConfig


def kept(history: History, n: int, vocab_size: int = 4) -> torch.Tensor:
    logits = torch.zeros(len(history.token_ids), vocab_size)
    return NoRepeatNgram(NoRepeatNgramConfig(n=n)).forward(logits, history) > -torch.inf


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_agrees_with_transformers(n: int) -> None:
    generator = torch.Generator().manual_seed(0)
    ids, logits = torch.randint(30, (50, 25), generator=generator), torch.randn(50, 30, generator=generator)
    ids[:, -3:] = ids[:, 4:7]
    ours = NoRepeatNgram(NoRepeatNgramConfig(n=n)).forward(logits, History(ids, torch.full((50,), 25)))
    theirs = NoRepeatNGramLogitsProcessor(n)(ids, logits)
    assert torch.equal(ours, theirs)
    assert (ours == -torch.inf).any()


def test_padding_is_no_text(told) -> None:  # type: ignore[no-untyped-def]
    # The second row's padding would give 0 0 1 and with it ban 1.
    assert kept(told([[1, 2, 0, 1, 2], [0, 0]]), 3).tolist() == [[False, True, True, True], [True] * 4]
    assert kept(told([[1, 2, 3], [2]]), 1).tolist() == [[True, False, False, False], [True, True, False, True]]


def test_a_short_text_bans_nothing(told) -> None:  # type: ignore[no-untyped-def]
    assert kept(told([[1, 1]]), 3).all()


def test_where_every_token_would_repeat_all_stay(told) -> None:  # type: ignore[no-untyped-def]
    logits = torch.tensor([[0.5, -torch.inf, 0.2]])
    out = NoRepeatNgram(NoRepeatNgramConfig(n=1)).forward(logits, told([[0, 2]]))
    assert torch.equal(out, logits)
