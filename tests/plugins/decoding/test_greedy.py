from __future__ import annotations

from typing import Any

import torch

from lamina.core import History, Sampler
from lamina.plugins.decoding.greedy import Greedy


class Remembers(Sampler):
    """Forbids each row's first token ever after; its state must follow the rows."""

    first: torch.Tensor | None = None

    def forward(self, logits: torch.Tensor, history: History) -> torch.Tensor:
        if history.n_generated == 0:
            self.first = logits.argmax(-1, keepdim=True)
            return logits
        assert self.first is not None
        return logits.scatter(-1, self.first, -torch.inf)

    def reorder(self, rows: torch.Tensor) -> None:
        self.first = None if self.first is None else self.first[rows]


def by_hand(table: torch.Tensor, prompt: list[int], n: int, stop: tuple[int, ...] = ()) -> list[int]:
    tokens = list(prompt)
    while len(tokens) < len(prompt) + n:
        before = tokens[-2] if len(tokens) > 1 else 0
        tokens.append(int(table[before, tokens[-1]].argmax()))
        if tokens[-1] in stop:
            break
    return tokens[len(prompt) :]


def test_takes_the_argmax_every_time(toy: Any, ask: Any, collect: Any) -> None:
    step = toy(20)
    prompts = [[3, 4], [5], [1, 2, 3]]
    out = collect(Greedy().decode(step, ask(prompts, 12)))
    assert out == [by_hand(step.table, prompt, 12) for prompt in prompts]


def test_a_row_ends_with_its_stop_token_and_leaves_the_batch(toy: Any, ask: Any, collect: Any) -> None:
    step = toy(12, seed=3)
    prompts = [[token] for token in range(8)]
    expected = [by_hand(step.table, prompt, 15, stop=(1, 2)) for prompt in prompts]
    assert len({len(row) for row in expected}) > 2  # they end at different times
    assert collect(Greedy().decode(step, ask(prompts, 15, stop=(1, 2)))) == expected
    assert sum(step.batches) == sum(map(len, expected))  # no work for a row that has ended


def test_a_row_ends_where_the_context_is_full(toy: Any, ask: Any, collect: Any) -> None:
    prompts = [[1], [1, 2, 3, 4], [1, 2, 3, 4, 5, 6]]
    out = collect(Greedy().decode(toy(20), ask(prompts, 10, context_length=6)))
    assert [len(row) for row in out] == [5, 2, 0]


def test_stages_follow_the_rows_that_remain(toy: Any, ask: Any, collect: Any) -> None:
    prompts = [[token] for token in range(8)]
    together = collect(Greedy().decode(toy(12, seed=3), ask(prompts, 15, stop=(1, 2), chain=(Remembers(),))))
    alone = [
        collect(Greedy().decode(toy(12, seed=3), ask([prompt], 15, stop=(1, 2), chain=(Remembers(),))))[0]
        for prompt in prompts
    ]
    assert together == alone
    assert together != collect(Greedy().decode(toy(12, seed=3), ask(prompts, 15, stop=(1, 2))))


def test_the_chain_sees_prompt_and_new_tokens(toy: Any, ask: Any) -> None:
    seen: list[tuple[list[int], int, int]] = []

    class Notes(Sampler):
        def forward(self, logits: torch.Tensor, history: History) -> torch.Tensor:
            seen.append((history.token_ids[0].tolist(), int(history.lengths[0]), history.n_generated))
            return logits

    tokens = [int(piece) for piece in Greedy().decode(toy(20), ask([[7, 8]], 3, chain=(Notes(),)))]
    assert seen == [([7, 8], 2, 0), ([7, 8, *tokens[:1]], 3, 1), ([7, 8, *tokens[:2]], 4, 2)]
