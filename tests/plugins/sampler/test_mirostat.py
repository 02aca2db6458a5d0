from __future__ import annotations

import math
import random

import torch

from lamina.core import History
from lamina.plugins.sampler.mirostat import Mirostat, MirostatConfig


def by_hand(logits: torch.Tensor, tau: float, eta: float, seed: int) -> tuple[list[set[int]], list[int]]:
    """What is left at each of the steps and what was drawn from it, straight from the algorithm. logits (steps, V)."""
    mu, left, tokens, draws = 2 * tau, [], [], random.Random(seed)
    for row in logits.double():
        p = row.softmax(-1).tolist()
        kept = {i for i, share in enumerate(p) if -math.log2(share) <= mu} or {max(range(len(p)), key=p.__getitem__)}
        left.append(kept)
        tokens.append(draws.choice(sorted(kept)))
        mu -= eta * (-math.log2(p[tokens[-1]] / sum(p[i] for i in kept)) - tau)
    return left, tokens


def run(stage: Mirostat, logits: torch.Tensor, tokens: torch.Tensor, start: int = 0) -> list[torch.Tensor]:
    """logits (steps, B, V), tokens (steps, B) -> what is left at each step (B, V)."""
    left = []
    for step in range(len(logits)):
        seen = torch.cat([torch.zeros(1, tokens.shape[1], dtype=torch.int64), tokens[:step]]).T  # (B, step + 1)
        history = History(seen, torch.full((len(seen),), step + 1), start + step)
        left.append(stage.forward(logits[step], history) > -torch.inf)
    return left


def test_follows_the_algorithm_row_by_row() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(40, 3, 50, generator=generator)
    wanted = [by_hand(logits[:, row], 1.5, 0.3, row) for row in range(3)]
    tokens = torch.tensor([drawn for _, drawn in wanted]).T
    left = run(Mirostat(MirostatConfig(tau=1.5, eta=0.3)), logits, tokens)
    for row, (kept, _) in enumerate(wanted):
        assert [set(mask[row].nonzero().flatten().tolist()) for mask in left] == kept
        assert len({len(one) for one in kept}) > 5


def test_the_surprise_of_a_text_comes_near_the_target() -> None:
    generator = torch.Generator().manual_seed(0)
    for tau in (1.0, 3.0):
        stage, tokens, total, plain = Mirostat(MirostatConfig(tau=tau, eta=0.2)), [0], 0.0, 0.0
        for step in range(400):
            logits = 2 * torch.randn(1, 200, generator=generator)
            history = History(torch.tensor([tokens]), torch.tensor([len(tokens)]), step)
            p = stage.forward(logits, history).softmax(-1)[0]
            tokens.append(int(torch.multinomial(p, 1, generator=generator)))
            total -= math.log2(p[tokens[-1]])
            plain += float(-(logits.softmax(-1) * logits.log_softmax(-1)).sum()) / math.log(2)
        assert abs(total / 400 - tau) < 0.25
        assert abs(plain / 400 - tau) > 1  # without the stage


def test_state_follows_its_row() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, tokens = 3 * torch.randn(30, 2, 50, generator=generator), torch.randint(50, (30, 2), generator=generator)
    plain, moved = Mirostat(MirostatConfig(tau=2.0)), Mirostat(MirostatConfig(tau=2.0))
    whole = run(plain, logits, tokens)
    run(moved, logits[:15], tokens[:15])
    moved.reorder(torch.tensor([1, 1, 0]))
    for step in range(15, 30):
        seen = torch.cat([torch.zeros(1, 2, dtype=torch.int64), tokens[:step]]).T[[1, 1, 0]]
        out = moved.forward(logits[step, [1, 1, 0]], History(seen, torch.full((3,), step + 1), step))
        assert torch.equal(out > -torch.inf, whole[step][[1, 1, 0]])
    assert not torch.equal(whole[-1][0], whole[-1][1])
