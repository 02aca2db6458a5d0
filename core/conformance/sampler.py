"""Samplers: each stage leaves a distribution, for every row by itself, and changes nothing in place."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from lamina.core.conformance.case import VOCAB, Case, generators, randn, tokens
from lamina.core.conformance.checks import NotApplicable, Wrong, check
from lamina.core.conformance.texts import same
from lamina.core.sampler import History, Sampler

STEPS = 4


def _stage(case: Case, rows: list[int]) -> Sampler:
    made: Sampler = case.build(dtype=torch.float32, generators=generators(rows))
    return made


def _logits(rows: list[int], step: int = 0, scale: float = 3.0) -> Tensor:
    """(B, V) float32: each row its own, whichever others there are."""
    return torch.stack([randn(VOCAB, seed=100 * step + row, dtype=torch.float32) * scale for row in rows])


def _history(rows: list[int], n: int, generated: int = 0, padding: int = 0) -> History:
    """n tokens of each row, the last so many generated, after some padding."""
    ids = torch.stack([tokens(1, 16, seed=row)[0, :n] for row in rows]) % (VOCAB - 1)  # no text has ended
    ids = torch.cat([ids.new_zeros(len(rows), padding), ids], 1)
    return History(ids, torch.full((len(rows),), n), generated)


@check("sampler", name="leaves a distribution")
def leaves_a_distribution(case: Case) -> None:
    """Whatever comes in, each row keeps a finite logit, has no NaN and no +inf, and removed tokens stay removed."""
    rows = [0, 1, 2]
    plain = _logits(rows)
    one = torch.full_like(plain, -torch.inf).scatter(1, torch.tensor([[3], [0], [28]]), 1.5)
    half = plain.masked_fill(torch.arange(VOCAB) % 2 == 0, -torch.inf)
    kinds = {
        "random": plain,
        "all equal": torch.zeros_like(plain),
        "one token left": one,
        "half removed": half,
        "large": plain * 1e4,
        "tiny": plain * 1e-6,
        "all negative": plain - 100.0,
    }
    for what, logits in kinds.items():
        for n in (1, 5):
            given = logits.clone()
            out = _stage(case, rows).forward(given, _history(rows, n))
            if not torch.equal(given, logits):
                raise Wrong("the logits given to be left as they are", "they were changed in place", logits=what)
            if out.shape != logits.shape or out.dtype != torch.float32:
                raise Wrong(f"{tuple(logits.shape)} float32", f"{tuple(out.shape)} {out.dtype}", logits=what)
            if out.isnan().any() or (out == torch.inf).any():
                raise Wrong("no NaN and no +inf", "there are some", logits=what, tokens_before=n)
            if not out.isfinite().any(-1).all():
                raise Wrong("a finite logit in every row", "a row of -inf alone", logits=what, tokens_before=n)
            if (out.isfinite() & logits.isinf()).any():
                raise Wrong("tokens that were removed before to stay removed", "one came back", logits=what)


@check("sampler", name="rows apart")
def rows_are_apart(case: Case) -> None:
    """A row's distribution, over several tokens, is that it has alone, without padding."""
    for n_rows in (2, 3):
        rows = list(range(n_rows))
        together = _run(case, rows)
        padded = _run(case, rows, padding=3)
        for row in rows:
            alone = _run(case, [row])
            for step in range(STEPS):
                got = (together[step][row : row + 1], padded[step][row : row + 1])
                what = ("the distribution a row has alone", "the same after padding on the left")
                for logits, expected in zip(got, what, strict=True):
                    _same(logits, alone[step], expected, rows=n_rows, row=row, token=step + 1)


@check("sampler", name="repeatable")
def the_same_again(case: Case) -> None:
    """The same logits, history and generators give the same distribution."""
    for step, (got, want) in enumerate(zip(_run(case, [0, 1]), _run(case, [0, 1]), strict=True), 1):
        _same(got, want, "the same distribution again", token=step)


@check("sampler", name="reorder")
def state_follows_its_row(case: Case) -> None:
    """After `reorder` what a stage remembers belongs to the rows that were picked; a copy is independent."""
    for rows, picked in (([0, 1], [1, 0]), ([0, 1, 2], [2, 0])):
        stage = _stage(case, rows)
        for step in range(STEPS):
            stage.forward(_logits(rows, step), _history(rows, 5 + step, step))
        trial = copy.deepcopy(stage)
        trial.forward(_logits(rows, 77), _history(rows, 5 + STEPS, STEPS))
        stage.reorder(torch.tensor(picked))
        chosen = [rows[i] for i in picked]
        got = stage.forward(_logits(chosen, STEPS), _history(chosen, 5 + STEPS, STEPS))
        for place, row in enumerate(chosen):
            want = _run(case, [row], STEPS + 1)[-1]
            _same(got[place : place + 1], want, "a row to keep what it remembers as rows move", rows=picked, row=row)


@check("sampler", name="acts as declared")
def it_acts_as_declared(case: Case) -> None:
    """What the class says of itself is true: `only_removes`, `removes_none`, `keeps_best`, `forgetful`."""
    declared: Any = case.entry.component
    words = [word for word in ("only_removes", "removes_none", "keeps_best", "forgetful") if getattr(declared, word)]
    if not words:
        raise NotApplicable("it declares nothing of what it does")
    rows = [0, 1, 2]
    for length in (1, 5):
        stage, elsewhere = _stage(case, rows), _stage(case, rows)
        for step in range(STEPS):
            logits = _logits(rows, step).masked_fill(torch.arange(VOCAB) % 4 == step, -torch.inf)
            out = stage.forward(logits, _history(rows, length + step, step))
            at = {"tokens_before": length + step, "generated": step}
            left = out.isfinite()
            if "only_removes" in words and not torch.equal(out[left], logits[left]):
                raise Wrong("the tokens that are left to have the logits they came with", "other ones", **at)
            if "removes_none" in words and not torch.equal(left, logits.isfinite()):
                raise Wrong("every token that came in to be left", f"{_gone(left, logits)} of them removed", **at)
            best = logits.argmax(-1, keepdim=True)
            if "keeps_best" in words and not torch.equal(out.gather(-1, best), out.amax(-1, keepdim=True)):
                raise Wrong("the most likely token to stay the most likely", "another one is, or it is removed", **at)
            if "forgetful" in words:
                there = elsewhere.forward(logits, _history(rows[::-1], 9 + step, 2 + step))
                _same(there, out, "the same whatever the history is", **at)


def _gone(left: Tensor, logits: Tensor) -> int:
    return int((~left & logits.isfinite()).sum())


def _run(case: Case, rows: list[int], steps: int = STEPS, padding: int = 0) -> list[Tensor]:
    """What a stage makes of each of several tokens' logits."""
    stage = _stage(case, rows)
    return [stage.forward(_logits(rows, step), _history(rows, 5 + step, step, padding)) for step in range(steps)]


def _same(got: Tensor, want: Tensor, expected: str, **case: object) -> None:
    if not torch.equal(got.isfinite(), want.isfinite()):
        raise Wrong(expected, "other tokens are left", **case)
    kept = want.isfinite()
    same(got[kept], want[kept], expected, 1e-4, **case)
