from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import cosine_similarity

from lamina.plugins.decoding.contrastive import Contrastive, ContrastiveConfig
from lamina.plugins.decoding.greedy import Greedy
from lamina.plugins.sampler.top_k import TopK, TopKConfig


def by_hand(step: Any, prompt: list[int], n: int, k: int, alpha: float, stop: tuple[int, ...] = ()) -> list[int]:
    text = [0, *prompt]
    past = [step.vectors[a, b] for a, b in zip(text, prompt, strict=False)]
    for _ in range(n):
        p = step.table[text[-2], text[-1]].softmax(-1)
        scores = {}
        for token in p.topk(k).indices.tolist():
            like = max(float(cosine_similarity(step.vectors[text[-1], token], other, dim=0)) for other in past)
            scores[token] = (1 - alpha) * float(p[token]) - alpha * like
        token = max(scores, key=scores.__getitem__)
        past.append(step.vectors[text[-1], token])
        text.append(token)
        if token in stop:
            break
    return text[1 + len(prompt) :]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("k", "alpha"), [(4, 0.6), (3, 0.2), (5, 1.0)])
def test_takes_what_the_formula_says(toy: Any, ask: Any, collect: Any, seed: int, k: int, alpha: float) -> None:
    step = toy(12, seed)
    one = Contrastive(ContrastiveConfig(k=k, alpha=alpha))
    prompts = [[1, 2, 3], [4], [5, 6]]
    wanted = [by_hand(step, prompt, 12, k, alpha, stop=(0,)) for prompt in prompts]
    assert collect(one.decode(step, ask(prompts, 12, stop=(0,)))) == wanted


@pytest.mark.parametrize("options", [{"alpha": 0.0}, {"k": 1}])
def test_without_a_penalty_or_a_choice_it_is_greedy(toy: Any, ask: Any, collect: Any, options: Any) -> None:
    asked = ask([[1, 2], [3]], 15, stop=(0,))
    greedy = collect(Greedy().decode(toy(9), asked))
    assert collect(Contrastive(ContrastiveConfig(**options)).decode(toy(9), asked)) == greedy


def test_what_the_chain_removed_is_not_tried(toy: Any, ask: Any, collect: Any) -> None:
    asked = ask([[1, 2]], 15, chain=(TopK(TopKConfig(k=1)),))
    greedy = collect(Greedy().decode(toy(9), asked))
    assert collect(Contrastive(ContrastiveConfig(k=4, alpha=1.0)).decode(toy(9), asked)) == greedy


def test_a_single_row_is_passed_on_token_by_token(toy: Any, ask: Any) -> None:
    pieces = list(Contrastive(ContrastiveConfig()).decode(toy(9), ask([[1, 2]], 7)))
    assert [piece.shape for piece in pieces] == [torch.Size([1, 1])] * 7
