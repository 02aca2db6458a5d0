from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from lamina.core import History, Sampler
from lamina.plugins.decoding.beam import Beam, BeamConfig
from lamina.plugins.decoding.greedy import Greedy
from lamina.plugins.sampler.top_k import TopK, TopKConfig


def score(table: torch.Tensor, prompt: list[int], tokens: list[int], alpha: float) -> float:
    whole, total = [0, *prompt, *tokens], 0.0
    for at in range(len(whole) - len(tokens), len(whole)):
        total += float(table[whole[at - 2], whole[at - 1]].log_softmax(-1)[whole[at]])
    return total / len(tokens) ** alpha


def every_text(vocab_size: int, longest: int, stop: int) -> list[list[int]]:
    """All texts that end with `stop`, or are `longest` long without it."""
    others = [token for token in range(vocab_size) if token != stop]
    texts = [list(text) for text in itertools.product(others, repeat=longest)]
    for n in range(longest):
        texts += [[*text, stop] for text in itertools.product(others, repeat=n)]
    return texts


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0, 2.0])
@pytest.mark.parametrize("seed", range(4))
def test_a_beam_as_wide_as_all_texts_finds_the_best_of_them(
    toy: Any, ask: Any, collect: Any, seed: int, alpha: float
) -> None:
    step, prompt = toy(4, seed=seed, sharpness=2.0), [1, 2]
    best = max(every_text(4, 4, stop=3), key=lambda text: score(step.table, prompt, text, alpha))
    beam = Beam(BeamConfig(n_beams=4**4, length_penalty=alpha))
    assert collect(beam.decode(step, ask([prompt], 4, stop=(3,)))) == [best]


def test_the_length_penalty_changes_what_is_found(toy: Any, ask: Any, collect: Any) -> None:
    lengths = [
        len(collect(Beam(BeamConfig(n_beams=256, length_penalty=alpha)).decode(toy(4, 1), ask([[1]], 4, stop=(3,))))[0])
        for alpha in (0.0, 3.0)
    ]
    assert lengths[0] < lengths[1]


@pytest.mark.parametrize("seed", range(6))
def test_one_beam_is_greedy(toy: Any, ask: Any, collect: Any, seed: int) -> None:
    prompts = [[1, 2], [3], [4, 5, 0]]
    asked = ask(prompts, 10, stop=(0, 1))
    beam = collect(Beam(BeamConfig(n_beams=1)).decode(toy(8, seed), asked))
    assert beam == collect(Greedy().decode(toy(8, seed), asked))


@pytest.mark.parametrize("seed", range(6))
def test_follows_a_naive_beam_search(toy: Any, ask: Any, collect: Any, seed: int) -> None:
    step, width, alpha, stop, longest = toy(7, seed), 3, 1.0, 0, 8
    beam, finished = [[]], []
    for n in range(1, longest + 1):
        candidates = [[*text, token] for text in beam for token in range(7)]
        candidates.sort(key=lambda text: -score(step.table, [1, 2], text, 0.0))
        ended = [text for text in candidates[:width] if text[-1] == stop or n == longest]
        beam = [text for text in candidates[:width] if text not in ended]
        finished, width = finished + ended, width - len(ended)
        if not beam:
            break
    best = max(finished, key=lambda text: score(step.table, [1, 2], text, alpha))
    found = collect(Beam(BeamConfig(n_beams=3)).decode(step, ask([[1, 2]], longest, stop=(stop,))))
    assert found == [best]


def test_more_beams_find_what_greedy_misses(toy: Any, ask: Any, collect: Any) -> None:
    better = 0
    for seed in range(10):
        step = toy(10, seed)
        asked = ask([[1, 2]], 6)
        greedy, beam = collect(Greedy().decode(step, asked))[0], collect(Beam(BeamConfig()).decode(step, asked))[0]
        difference = score(step.table, [1, 2], beam, 1.0) - score(step.table, [1, 2], greedy, 1.0)
        better += difference > 1e-6
    assert better >= 5


def test_only_what_the_chain_leaves_is_followed(toy: Any, ask: Any, collect: Any) -> None:
    step = toy(10)
    asked = ask([[1, 2]], 5, chain=(TopK(TopKConfig(k=1)),))
    assert collect(Beam(BeamConfig(n_beams=4)).decode(step, asked)) == collect(Greedy().decode(step, asked))


def test_rows_of_a_batch_are_searched_independently(toy: Any, ask: Any, collect: Any) -> None:
    prompts = [[1, 2, 3, 4], [3], [4, 5, 0]]
    together = collect(Beam(BeamConfig()).decode(toy(8), ask(prompts, 6, stop=(0,), context_length=7)))
    for prompt, row in zip(prompts, together, strict=True):
        assert collect(Beam(BeamConfig()).decode(toy(8), ask([prompt], 6, stop=(0,), context_length=7))) == [row]
    assert len(together[0]) <= 3


class Remembers(Sampler):
    """Forbids for ever what was most likely at its very first call for each continuation."""

    first: torch.Tensor | None = None

    def forward(self, logits: torch.Tensor, history: History) -> torch.Tensor:
        if self.first is None:
            self.first = logits.argmax(-1, keepdim=True)
            return logits
        return logits.scatter(-1, self.first, -torch.inf)

    def reorder(self, rows: torch.Tensor) -> None:
        self.first = None if self.first is None else self.first[rows]


def test_what_stages_remember_stays_with_its_prompt(toy: Any, ask: Any, collect: Any) -> None:
    prompts = [[1, 2], [3], [4, 5, 0]]
    together = collect(Beam(BeamConfig()).decode(toy(8), ask(prompts, 6, chain=(Remembers(),))))
    for prompt, row in zip(prompts, together, strict=True):
        assert collect(Beam(BeamConfig()).decode(toy(8), ask([prompt], 6, chain=(Remembers(),)))) == [row]
    assert together != collect(Beam(BeamConfig()).decode(toy(8), ask(prompts, 6)))


def test_no_beams_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"n_beams\n.*greater than or equal to 1"):
        BeamConfig(n_beams=0)
