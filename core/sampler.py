"""The sampler kind: one stage of a chain that turns logits into the distribution a token is drawn from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

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
    """A stage of the chain. Built anew for each request, so it may keep state between tokens."""

    kind = "sampler"

    @abstractmethod
    def forward(self, logits: Tensor, history: History) -> Tensor:
        """(B, V) float32 -> (B, V). Removed tokens are -inf; every row keeps at least one finite logit."""

    def reorder(self, rows: Tensor) -> None:
        """Rows were picked and reordered (beams): state kept by row must follow. rows (B,) int64."""
