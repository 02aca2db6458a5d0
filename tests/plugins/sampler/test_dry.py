from __future__ import annotations

from typing import Any

import pytest
import torch

from lamina.core import ConfigProblem, History
from lamina.plugins.sampler.dry import DRY, DRYConfig
from lamina.plugins.tokenizer.byte import ByteTokenizer
from lamina.plugins.tokenizer.character import CharacterTokenizer


def longest_repetition(text: list[int], token: int, breakers: set[int]) -> int:
    """The most tokens m such that the text ends with m tokens that stand, followed by `token`, earlier in it."""
    best = 0
    for m in range(1, len(text)):
        end = text[-m:]
        if breakers & {*end, token}:
            break
        if any(text[at : at + m] == end and text[at + m] == token for at in range(len(text) - m)):
            best = m
    return best


def stage(vocab_size: int = 5, breakers: str = "", **options: Any) -> DRY:
    tokenizer = CharacterTokenizer("abcdefghijklmnopqrstuvwxyz"[:vocab_size])
    return DRY(DRYConfig(sequence_breakers=list(breakers), **options), tokenizer, vocab_size)


@pytest.mark.parametrize("breakers", ["", "a", "bd"])
@pytest.mark.parametrize("reach", [None, 7, 12])
def test_penalises_by_the_length_of_the_repetition(told, breakers: str, reach: int | None) -> None:  # type: ignore[no-untyped-def]
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(4, (int(n),), generator=generator).tolist() for n in torch.arange(1, 20)]
    rows += [(row * 3)[: 2 * len(row) + 1] for row in rows if len(row) > 3]
    logits = torch.randn(len(rows), 5, generator=generator)
    one = stage(5, breakers, multiplier=0.7, base=1.5, allowed_length=2, range=reach)
    out = one.forward(logits, told(rows))
    broken, changed = {"abcde".index(letter) for letter in breakers}, 0
    for row, text in enumerate(rows):
        for token in range(5):
            m = longest_repetition(text[-reach:] if reach else text, token, broken)
            penalty = min(0.7 * 1.5 ** (m - 2), 1e6) if m >= 2 else 0.0
            torch.testing.assert_close(out[row, token], logits[row, token] - penalty)
            changed += penalty > 0
    assert changed > 0


def test_a_long_repetition_leaves_a_distribution(told) -> None:  # type: ignore[no-untyped-def]
    out = stage(5, base=100.0).forward(torch.zeros(1, 5), told([[1] * 3000]))
    assert out.isfinite().all()
    assert out[0, 1] < -1000
    assert torch.equal(stage(5, multiplier=0.0).forward(torch.ones(1, 5), told([[1, 2] * 9])), torch.ones(1, 5))


def test_a_penalty_of_nothing_changes_nothing_for_tokens_that_extend_none(told) -> None:  # type: ignore[no-untyped-def]
    logits = torch.randn(1, 5)
    assert torch.equal(stage().forward(logits, told([[0, 1, 2, 3, 4]])), logits)


def test_tokens_that_hold_a_breaker_break() -> None:
    one = DRY(DRYConfig(), ByteTokenizer(), 300)
    assert set(one.breaks.nonzero().flatten().tolist()) == set(b'\n:"*')
    ids = list(b"say: a. say:")
    history = History(torch.tensor([ids]), torch.tensor([len(ids)]))
    assert torch.equal(one.forward(torch.zeros(1, 300), history), torch.zeros(1, 300))
    free = DRY(DRYConfig(sequence_breakers=[]), None, 300).forward(torch.zeros(1, 300), history)
    assert free[0, ord(" ")] < 0


def test_breakers_that_cannot_be_honoured_are_refused() -> None:
    with pytest.raises(ConfigProblem, match="without a tokenizer"):
        DRY(DRYConfig(), None, 10)
    with pytest.raises(ConfigProblem, match="no token of the tokenizer holds 'ab'"):
        DRY(DRYConfig(sequence_breakers=["ab"]), ByteTokenizer(), 257)
    assert not stage(5, "\n*").breaks.any()  # characters that never come
