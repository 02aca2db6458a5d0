from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from lamina.core import GenerationError, History, OtherModel, Tokenizer
from lamina.plugins.decoding.greedy import Greedy
from lamina.plugins.decoding.speculative import Speculative, SpeculativeConfig
from lamina.plugins.sampler.greedy import GreedySampler
from lamina.plugins.sampler.mirostat import Mirostat, MirostatConfig
from lamina.plugins.sampler.temperature import Temperature, TemperatureConfig
from lamina.plugins.tokenizer.byte import ByteTokenizer
from lamina.plugins.tokenizer.character import CharacterTokenizer


def with_draft(step: Any, vocab_size: int, n_draft: int = 4, context_length: int = 1000) -> Speculative:
    def fresh(room: int) -> Any:
        step.batches = []
        return step

    other = OtherModel(None, vocab_size, context_length, fresh)
    return Speculative(SpeculativeConfig(draft="draft", n_draft=n_draft), None, vocab_size, lambda _: other)


def near(step: Any, toy: Any, vocab_size: int, distance: float) -> Any:
    """A draft model whose logits are not far from those of `step`."""
    draft = toy(vocab_size, seed=99)
    draft.table = step.table + distance * draft.table
    return draft


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n_draft", [1, 2, 5])
@pytest.mark.parametrize("distance", [0.0, 0.5, 10.0])
def test_greedy_text_is_that_of_plain_greedy(
    toy: Any, ask: Any, collect: Any, seed: int, n_draft: int, distance: float
) -> None:
    prompts = [[1, 2, 3], [3], [4, 5, 0, 4]]
    plain = collect(Greedy().decode(toy(7, seed), ask(prompts, 30, stop=(0,), context_length=25)))
    step = toy(7, seed)
    one = with_draft(near(step, toy, 7, distance), 7, n_draft)
    found = collect(one.decode(step, ask(prompts, 30, stop=(0,), context_length=25, chain=(GreedySampler(),))))
    assert found == plain
    if distance == 0:
        for row in range(3):
            told = one.statistics(row)
            assert told["accepted"] == told["drafted"] > 0


@pytest.mark.parametrize(("n_draft", "sharpness"), [(1, 1.0), (3, 0.3)])
def test_draws_keep_their_distribution(toy: Any, ask: Any, collect: Any, n_draft: int, sharpness: float) -> None:
    n, step = 700, toy(3)
    one = with_draft(near(step, toy, 3, 1.0), 3, n_draft)
    chain = (Temperature(TemperatureConfig(value=1 / sharpness)),)
    found = torch.tensor(collect(one.decode(step, ask([[1, 2]] * n, 3, chain=chain))))  # (n, 3)
    p = (sharpness * step.table).softmax(-1)
    whole = torch.einsum("a,ab,abc->abc", p[1, 2], p[2], p).flatten().double()
    counts = torch.bincount(found[:, 0] * 9 + found[:, 1] * 3 + found[:, 2], minlength=27).double()
    # Chi-square with 26 degrees of freedom exceeds 62 once in 10 000.
    assert ((counts - n * whole) ** 2 / (n * whole)).sum() < 62
    drafted, accepted = (sum(one.statistics(row)[what] for row in range(n)) for what in ("drafted", "accepted"))
    assert 0.3 < accepted / drafted < 0.95


def test_a_draft_model_with_less_room_drafts_as_far_as_it_can(toy: Any, ask: Any, collect: Any) -> None:
    for context_length in (2, 3, 8):
        step = toy(7)
        one = with_draft(near(step, toy, 7, 0.0), 7, context_length=context_length)
        found = collect(one.decode(step, ask([[1, 2, 3]], 20, chain=(GreedySampler(),))))
        assert found == collect(Greedy().decode(toy(7), ask([[1, 2, 3]], 20)))
        assert (one.statistics(0)["drafted"] > 0) == (context_length > 3)


def test_a_draft_model_padded_to_another_size_drafts_all_the_same(toy: Any, ask: Any, collect: Any) -> None:
    step = toy(7)
    for size in (5, 9):
        draft = toy(size)
        one = with_draft(draft, 7)
        draft.table = draft.table.clone()
        draft.table[..., 5:] = -torch.inf
        found = collect(one.decode(step, ask([[1, 2, 3]], 5, chain=(_Low(), GreedySampler()))))
        assert found == collect(Greedy().decode(toy(7), ask([[1, 2, 3]], 5, chain=(_Low(),))))


class _Low(GreedySampler):
    """Only the first five tokens."""

    def forward(self, logits: torch.Tensor, history: History) -> torch.Tensor:
        return logits.index_fill(-1, torch.arange(5, logits.shape[1]), -torch.inf)


def test_stages_that_remember_see_each_token_once(toy: Any, ask: Any, collect: Any) -> None:
    step = toy(6)
    chain = (Mirostat(MirostatConfig(tau=1.0, eta=1.0)), GreedySampler())
    plain = collect(Greedy().decode(toy(6), ask([[1, 2]], 30, chain=chain)))
    one = with_draft(near(step, toy, 6, 0.5), 6)
    assert collect(one.decode(step, ask([[1, 2]], 30, chain=chain))) == plain


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        (None, 9, "a vocabulary of 9, the decoder one of 7"),
        (ByteTokenizer(), None, "has no tokenizer, unlike the decoder"),
        (None, ByteTokenizer(), "has a tokenizer, unlike the decoder"),
        (CharacterTokenizer("abc"), CharacterTokenizer("abcd"), "a tokenizer of 4 tokens, the decoder one of 3"),
        (CharacterTokenizer("abc"), CharacterTokenizer("adc"), "its token 1 is 'd', the decoder's 'b'"),
    ],
)
def test_a_draft_model_of_other_tokens_is_refused(ours: Any, theirs: Any, message: str) -> None:
    size = theirs if isinstance(theirs, int) else 7
    tokenizer = theirs if isinstance(theirs, Tokenizer) else None
    other: Callable[[str], OtherModel] = lambda _: OtherModel(tokenizer, size, 10, lambda room: None)  # type: ignore[assignment,return-value]  # noqa: E731
    with pytest.raises(GenerationError, match=message):
        Speculative(SpeculativeConfig(draft="small"), ours, 7, other)


def test_the_draft_model_goes_on_from_the_text_whatever_became_of_its_guesses(toy: Any, ask: Any) -> None:
    draft = toy(7, seed=4)
    request = ask([[1, 2]], 40, chain=(GreedySampler(),))
    drafter, text, generator = with_draft(draft, 7, n_draft=4).drafter(request), [1, 2, 3], torch.Generator()
    for _ in range(12):
        history = History(torch.tensor([text]), torch.tensor([len(text)]), len(text) - 2)
        guess, drawn_from = drafter.guess(request, history, 100)
        alone = list(text)
        for _ in range(4):
            alone.append(int(draft.table[alone[-2], alone[-1]].argmax()))
        assert guess == alone[len(text) :]
        assert drawn_from is not None
        assert drawn_from.argmax(-1).tolist() == guess
        n_accepted = int(torch.randint(5, (), generator=generator))
        text = [*text, *guess[:n_accepted]]
        text.append(int(torch.randint(7, (), generator=generator)))
