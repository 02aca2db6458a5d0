"""What every stage of a chain did to the distribution each generated token was taken from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lamina.core.sampler import History, Sampler


@dataclass(frozen=True)
class StageTrace:
    """One stage at one token."""

    stage: str
    removed: float  # probability, before the stage, of the tokens it removed
    moved: float  # probability that lies on other tokens after the stage, removed or not: total variation
    n_left: int  # tokens with a finite logit after the stage


class Trace:
    """Collects what the stages of a chain do, by row and by the tokens generated before.

    Strategies may follow texts that are not chosen in the end; of each text the last pass counts.
    """

    def __init__(self) -> None:
        self._found: dict[tuple[int, tuple[int, ...]], dict[int, StageTrace]] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Trace:
        return self  # copies of the stages report here too

    def wrap(self, stages: Sequence[tuple[str, Sampler]], n_rows: int) -> list[Sampler]:
        """The chain of these named stages, watched."""
        return [_Watched(stage, name, place, n_rows, self) for place, (name, stage) in enumerate(stages)]

    def note(self, row: int, before: tuple[int, ...], place: int, found: StageTrace) -> None:
        self._found.setdefault((row, before), {})[place] = found

    def of(self, row: int, tokens: Sequence[int]) -> list[list[StageTrace]]:
        """For each of a row's generated tokens, its stages in order."""
        whole = tuple(tokens)
        found = [self._found.get((row, whole[:at]), {}) for at in range(len(whole))]
        return [[stages[place] for place in sorted(stages)] for stages in found]


class _Watched(Sampler):
    """A stage that tells what it does."""

    def __init__(self, stage: Sampler, name: str, place: int, n_rows: int, trace: Trace) -> None:
        self.stage, self.name, self.place, self.trace = stage, name, place, trace
        self.rows = torch.arange(n_rows)

    def forward(self, logits: Tensor, history: History) -> Tensor:
        out = self.stage.forward(logits, history)
        gone = out == -torch.inf
        before = logits.softmax(-1)
        removed = before.masked_fill(~gone, 0).sum(-1).tolist()
        moved = ((out.softmax(-1) - before).abs().sum(-1) / 2).tolist()
        left = (~gone).sum(-1).tolist()
        texts = history.token_ids[:, history.token_ids.shape[1] - history.n_generated :].tolist()
        for at, row in enumerate(self.rows.tolist()):
            self.trace.note(row, tuple(texts[at]), self.place, StageTrace(self.name, removed[at], moved[at], left[at]))
        return out

    def reorder(self, rows: Tensor) -> None:
        self.rows = self.rows[rows.cpu()]
        self.stage.reorder(rows)

    def ended(self, history: History) -> Tensor | None:
        return self.stage.ended(history)
