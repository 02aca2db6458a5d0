from __future__ import annotations

from typing import Any

import pytest
import torch

from lamina.core import History
from lamina.plugins.decoding.greedy import Greedy
from lamina.plugins.decoding.prompt_lookup import PromptLookup, PromptLookupConfig
from lamina.plugins.sampler.greedy import GreedySampler
from lamina.plugins.sampler.mirostat import Mirostat, MirostatConfig


def lookup(**options: int) -> PromptLookup:
    return PromptLookup(PromptLookupConfig(**options))


def guess(text: list[int], most: int = 100, **options: int) -> list[int]:
    one = lookup(**options).drafter(None)  # type: ignore[arg-type]
    found, drawn_from = one.guess(None, History(torch.tensor([text]), torch.tensor([len(text)])), most)  # type: ignore[arg-type]
    assert drawn_from is None
    return list(found)


def test_guesses_what_followed_the_longest_run_at_its_latest_place() -> None:
    assert guess([1, 2, 3, 4, 5, 1, 2, 3]) == [4, 5, 1, 2, 3]
    assert guess([1, 2, 3, 4, 9, 2, 3, 5, 1, 2, 3]) == [4, 9, 2, 3, 5, 1, 2, 3]  # three tokens before two
    assert guess([1, 2, 3, 4, 9, 2, 3, 5, 1, 2, 3], max_ngram=2) == [5, 1, 2, 3]
    assert guess([1, 2, 3, 4, 5, 1, 2, 3], n_draft=2) == [4, 5]
    assert guess([1, 2, 3, 4, 5, 1, 2, 3], most=1) == [4]
    assert guess([7, 7]) == [7]
    assert guess([1, 2, 3]) == guess([1]) == []


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("n_draft", [1, 3, 8])
def test_greedy_text_is_that_of_plain_greedy(toy: Any, ask: Any, collect: Any, seed: int, n_draft: int) -> None:
    prompts = [[1, 2, 3, 1, 2], [3], [4, 5, 0, 4, 5, 0]]
    plain = collect(Greedy().decode(toy(6, seed), ask(prompts, 30, stop=(0,), context_length=25)))
    one, step = lookup(n_draft=n_draft), toy(6, seed)
    found = collect(one.decode(step, ask(prompts, 30, stop=(0,), context_length=25, chain=(GreedySampler(),))))
    assert found == plain
    for row, text in enumerate(found):
        told = one.statistics(row)
        assert told["accepted"] <= told["drafted"]
        assert told["tokens_per_call"] == len(text) / told["decoder_calls"]
    assert sum(one.statistics(row)["decoder_calls"] for row in range(3)) == step.calls + 3


def test_a_text_that_repeats_itself_takes_few_calls(toy: Any, ask: Any, collect: Any) -> None:
    step, one = toy(3, 1), lookup()  # so few tokens that greedy text soon goes in a circle
    found = collect(one.decode(step, ask([[1, 2]], 60, chain=(GreedySampler(),))))
    assert len(found[0]) == 60
    assert step.calls < 30
    assert one.statistics(0)["acceptance_rate"] > 0.5


def test_draws_keep_their_distribution(toy: Any, ask: Any, collect: Any) -> None:
    n, step = 700, toy(3, sharpness=0.7)
    one = lookup()
    # The prompt is made so that the first guess is there at once.
    found = torch.tensor(collect(one.decode(step, ask([[1, 2, 1, 2]] * n, 3))))  # (n, 3)
    p = step.table.softmax(-1)
    first = p[1, 2]
    whole = torch.einsum("a,ab,abc->abc", first, p[2], p).flatten().double()
    counts = torch.bincount(found[:, 0] * 9 + found[:, 1] * 3 + found[:, 2], minlength=27).double()
    # Chi-square with 26 degrees of freedom exceeds 62 once in 10 000.
    assert ((counts - n * whole) ** 2 / (n * whole)).sum() < 62
    assert sum(one.statistics(row)["accepted"] for row in range(n)) > n / 10


def test_stages_that_remember_see_each_token_once(toy: Any, ask: Any, collect: Any) -> None:
    seen: list[int] = []

    class Notes(Mirostat):
        def forward(self, logits: torch.Tensor, history: History) -> torch.Tensor:
            seen.append(history.n_generated)
            return super().forward(logits, history)

        def __deepcopy__(self, memo: Any) -> Notes:
            return self

    chain = (Notes(MirostatConfig()), GreedySampler())
    collect(lookup().decode(toy(3, 1), ask([[1, 2]], 40, chain=chain)))
    assert seen == list(range(40))
