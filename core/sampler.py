"""The sampler kind: one stage of a chain that turns logits into the distribution a token is drawn from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lamina.core.component import Component


@dataclass(eq=False)
class History:
    """The tokens so far of each row. Rows of unequal length are padded on the left."""

    token_ids: Tensor  # (B, L) int64
    lengths: Tensor  # (B,) int64: the last `lengths[b]` tokens of row b are real
    n_generated: int = 0  # of which the last so many were generated

    def mask(self) -> Tensor:
        """(B, L) bool, True at real tokens."""
        length = self.token_ids.shape[1]
        return torch.arange(length, device=self.token_ids.device) >= (length - self.lengths).unsqueeze(1)

    def counts(self, vocab_size: int, *, generated_only: bool = False) -> Tensor:
        """(B, V) float: how often each token stands in the history, or in its generated part."""
        mask = self.mask()
        if generated_only:
            mask[:, : self.token_ids.shape[1] - self.n_generated] = False
        counts = torch.zeros(self.token_ids.shape[0], vocab_size, device=self.token_ids.device)
        return counts.scatter_add_(1, self.token_ids.clamp(min=0), mask.float())


class Sampler(Component, ABC):
    """A stage of the chain. Built anew for each request, so it may keep state between tokens.

    It may ask in its constructor for the model's `tokenizer` (None when there is none) and `vocab_size`, the request's
    `stop_ids`, and `generators`, one a row, which no other stage draws from. `forward` is called once for each next
    token, in order; the token chosen since is the last of the history. Strategies follow several continuations, some of
    them on trial: they copy the stage with `copy.deepcopy`, and `reorder` the rows of a copy.

    What a stage declares of itself in class attributes, `lamina plugin check` holds it to.
    """

    only_removes: ClassVar[bool] = False  # the tokens it leaves have the logits they came with
    removes_none: ClassVar[bool] = False  # every token that came in is left
    keeps_best: ClassVar[bool] = False  # the most likely token stays the most likely
    forgetful: ClassVar[bool] = False  # what it does follows from the logits, not from the history

    kind = "sampler"
    told: ClassVar[tuple[str, ...]] = ("tokenizer", "vocab_size", "generators", "stop_ids")

    @abstractmethod
    def forward(self, logits: Tensor, history: History) -> Tensor:
        """(B, V) float32 -> (B, V). Removed tokens are -inf; every row keeps at least one finite logit."""

    def reorder(self, rows: Tensor) -> None:
        """Rows were picked and reordered (beams): state kept by row must follow. rows (B,) int64."""

    def ended(self, history: History) -> Tensor | None:
        """(B,) bool: rows whose text is complete with the history's last token, as this stage sees it; None for none.

        Asked after each token is chosen and before `forward` is called for the next.
        """
        return None
