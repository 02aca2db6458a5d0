from __future__ import annotations

from typing import Any

import pytest
import torch

from lamina.core import ConfigProblem
from lamina.plugins.decoding.beam import Beam, BeamConfig
from lamina.plugins.decoding.diverse_beam import DiverseBeam, DiverseBeamConfig


def diverse(n_beams: int, n_groups: int, penalty: float, alpha: float = 1.0) -> DiverseBeam:
    config = DiverseBeamConfig(n_beams=n_beams, n_groups=n_groups, diversity_penalty=penalty, length_penalty=alpha)
    return DiverseBeam(config)


def log_p(table: torch.Tensor, prompt: list[int], text: list[int]) -> float:
    whole = [0, *prompt, *text]
    return sum(
        float(table[whole[at - 2], whole[at - 1]].log_softmax(-1)[whole[at]])
        for at in range(1 + len(prompt), len(whole))
    )


def by_hand(
    table: torch.Tensor, prompt: list[int], longest: int, stop: int, width: int, n_groups: int, penalty: float
) -> tuple[list[int], list[list[list[int]]]]:
    """The best text, and the texts each group follows after each step."""
    beams, widths = [[[]] for _ in range(n_groups)], [width] * n_groups
    finished: list[list[int]] = []
    followed = []
    for n in range(1, longest + 1):
        taken: list[int] = []
        for group in range(n_groups):
            candidates = [[*text, token] for text in beams[group] for token in range(len(table))]
            candidates.sort(key=lambda text: -(log_p(table, prompt, text) - penalty * taken.count(text[-1])))
            chosen = candidates[: widths[group]]
            taken += [text[-1] for text in chosen]
            ended = [text for text in chosen if text[-1] == stop or n == longest]
            finished += ended
            beams[group] = [text for text in chosen if text not in ended]
            widths[group] -= len(ended)
        followed.append([list(group) for group in beams])
    return max(finished, key=lambda text: log_p(table, prompt, text) / len(text)), followed


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("penalty", [0.3, 2.0])
def test_follows_a_naive_search_by_groups(toy: Any, ask: Any, collect: Any, seed: int, penalty: float) -> None:
    step = toy(6, seed)
    best, _ = by_hand(step.table, [1, 2], 6, 0, 2, 3, penalty)
    assert collect(diverse(6, 3, penalty).decode(step, ask([[1, 2]], 6, stop=(0,)))) == [best]


def test_groups_keep_out_of_each_others_way(toy: Any, ask: Any) -> None:
    step, notes = toy(12, 3), []
    one = diverse(3, 3, 50.0)
    plain = one._penalise

    def noting(scores: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        notes.append(chosen.tolist())
        return plain(scores, chosen)

    one._penalise = noting  # type: ignore[method-assign]
    list(one.decode(step, ask([[1, 2]], 5)))
    last = [chosen for chosen in notes if len(chosen) == 2]
    assert len(last) == 5
    assert all(a != b for a, b in last)


@pytest.mark.parametrize("seed", range(5))
def test_one_group_is_beam_search(toy: Any, ask: Any, collect: Any, seed: int) -> None:
    asked = ask([[1, 2], [3], [4, 5, 0]], 8, stop=(0, 1))
    beam = collect(Beam(BeamConfig(n_beams=3)).decode(toy(8, seed), asked))
    assert collect(diverse(3, 1, 5.0).decode(toy(8, seed), asked)) == beam


def test_without_a_penalty_every_group_is_the_same_beam_search(toy: Any, ask: Any, collect: Any) -> None:
    asked = ask([[1, 2], [3], [4, 5, 0]], 8, stop=(0, 1))
    beam = collect(Beam(BeamConfig(n_beams=2)).decode(toy(8), asked))
    assert collect(diverse(6, 3, 0.0).decode(toy(8), asked)) == beam


def test_beams_that_no_group_can_share_are_refused() -> None:
    with pytest.raises(ConfigProblem, match=r"n_beams \(5\) must be a multiple of n_groups \(3\)"):
        DiverseBeamConfig(n_beams=5).derive()
