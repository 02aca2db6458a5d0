from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.plugins.decoding.sample import Sample, draw, uniforms
from lamina.plugins.sampler.greedy import GreedySampler
from lamina.plugins.sampler.top_k import TopK, TopKConfig


def test_draws_follow_the_distribution() -> None:
    n = 40_000
    probabilities = torch.tensor([0.0, 0.5, 0.2, 0.0, 0.15, 0.1, 0.05, 0.0])
    numbers = torch.rand(n, generator=torch.Generator().manual_seed(0))
    counts = torch.bincount(draw(probabilities.expand(n, -1), numbers), minlength=8).double()
    assert (counts[probabilities == 0] == 0).all()
    expected, counts = n * probabilities[probabilities > 0].double(), counts[probabilities > 0]
    # Chi-square with 4 degrees of freedom exceeds 23.5 once in 10 000 seeds.
    assert ((counts - expected) ** 2 / expected).sum() < 23.5


def test_whole_texts_follow_the_distribution(toy: Any, ask: Any, collect: Any) -> None:
    n, step = 4000, toy(3)
    out = torch.tensor(collect(Sample().decode(step, ask([[1, 2]] * n, 2))))  # (n, 2)
    first = step.table[1, 2].softmax(-1)
    second = torch.stack([step.table[2, token].softmax(-1) for token in range(3)])
    expected = n * (first.unsqueeze(1) * second).flatten().double()
    counts = torch.bincount(out[:, 0] * 3 + out[:, 1], minlength=9).double()
    # Chi-square with 8 degrees of freedom exceeds 31.8 once in 10 000.
    assert ((counts - expected) ** 2 / expected).sum() < 31.8


@given(
    weights=st.lists(st.floats(0, 1), min_size=1, max_size=8).filter(lambda values: sum(values) > 1e-3),
    number=st.one_of(st.floats(0, 1, exclude_max=True, width=32), st.sampled_from([0.0, 1 - 2**-24])),
)
@settings(max_examples=300, deadline=None)
def test_a_token_without_probability_is_never_drawn(weights: list[float], number: float) -> None:
    probabilities = torch.tensor([weights]) / sum(weights)
    token = int(draw(probabilities, torch.tensor([number])))
    assert probabilities[0, token] > 0


def test_a_seed_gives_the_same_text_again_and_another_seed_another(toy: Any, ask: Any, collect: Any) -> None:
    first, again, other = (collect(Sample().decode(toy(50), ask([[1, 2]], 30, seeds=[seed]))) for seed in (5, 5, 6))
    assert first == again != other


def test_a_longer_request_begins_with_the_shorter_one(toy: Any, ask: Any, collect: Any) -> None:
    short, long = (collect(Sample().decode(toy(50), ask([[1, 2]], n)))[0] for n in (10, 150))
    assert long[:10] == short
    assert len(set(pairwise(long))) > 60  # the numbers do not repeat from block to block


def test_a_row_does_not_depend_on_its_neighbours(toy: Any, ask: Any, collect: Any) -> None:
    prompts = [[1, 2], [3], [4, 5, 6], [7]]
    together = collect(Sample().decode(toy(12), ask(prompts, 20, stop=(0, 1))))
    for row, prompt in enumerate(prompts):
        assert collect(Sample().decode(toy(12), ask([prompt], 20, stop=(0, 1), seeds=[row]))) == [together[row]]
    assert len({len(row) for row in together}) > 1


def test_the_chain_decides_what_can_be_drawn(toy: Any, ask: Any, collect: Any) -> None:
    step = toy(30)
    out = collect(Sample().decode(step, ask([[1, 2]] * 50, 1, chain=(TopK(TopKConfig(k=3)),))))
    assert {token for row in out for token in row} == set(step.table[1, 2].topk(3).indices.tolist())
    greedy = collect(Sample().decode(step, ask([[1, 2]] * 5, 1, chain=(GreedySampler(),))))
    assert greedy == [[int(step.table[1, 2].argmax())]] * 5


def test_numbers_come_from_the_rows_own_generators_alone() -> None:
    before = torch.get_rng_state()
    numbers = uniforms([torch.Generator().manual_seed(seed) for seed in (1, 2)], torch.device("cpu"))
    drawn = torch.stack([next(numbers) for _ in range(100)])  # (100, 2)
    assert torch.equal(torch.get_rng_state(), before)
    alone = uniforms([torch.Generator().manual_seed(2)], torch.device("cpu"))
    assert torch.equal(torch.stack([next(alone)[0] for _ in range(100)]), drawn[:, 1])
    assert len(drawn.unique()) == 200
