"""Contrastive search: of the k most likely tokens v take the one of highest (1 − α) · p(v) − α · max_j cos(h_v, h_j).

h_v is what the head would read after v, h_j what it read after each token so far. Su et al. 2022, arXiv:2202.06417.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from lamina.core import ComponentConfig, Decoding, History, Register, Request, Step, hookimpl, row_by_row


class ContrastiveConfig(ComponentConfig):
    k: int = Field(4, ge=1, description="How many of the most likely tokens are tried.")
    alpha: float = Field(0.6, ge=0, le=1, description="α: weight of being unlike the text so far; 0 is greedy.")


class Contrastive(Decoding):
    """Take likely tokens that lead somewhere new: no draws, and less repetition than greedy decoding."""

    Config = ContrastiveConfig
    paper = "Su et al. 2022, arXiv:2202.06417"

    def __init__(self, config: ContrastiveConfig) -> None:
        self.k, self.alpha = config.k, config.alpha

    def decode(self, step: Step, request: Request) -> Iterator[Tensor]:
        return row_by_row(request, lambda row: self._row(step, request, row))

    def _row(self, step: Step, request: Request, row: int) -> Iterator[list[int]]:
        limit, alone = int(request.limits[row]), request.only(row)
        if limit == 0:
            return
        seen = alone.token_ids
        logits = step.start(seen, alone.lengths)
        past = F.normalize(step.features[0].float(), dim=-1)  # (L, D)
        best = torch.zeros(1, dtype=torch.int64, device=seen.device)
        for n_new in range(limit):
            history = History(seen, alone.lengths + n_new, n_new)
            p = alone.shape(logits, history).softmax(-1)[0]  # (V,)
            likely, tokens = p.topk(min(self.k, len(p)))
            likely, tokens = likely[likely > 0], tokens[likely > 0]  # (k,) what the chain left
            step.reorder(best.expand(len(tokens)))
            logits = step.advance(tokens)  # (k, V)
            features = F.normalize(step.features[:, -1].float(), dim=-1)  # (k, D)
            likeness = (features @ past.T).amax(-1)
            best = ((1 - self.alpha) * likely - self.alpha * likeness).argmax(keepdim=True)
            seen, past, logits = (
                torch.cat([seen, tokens[best].unsqueeze(1)], 1),
                torch.cat([past, features[best]]),
                logits[best],
            )
            yield tokens[best].tolist()
            if bool(alone.ended(History(seen, alone.lengths + n_new + 1, n_new + 1))):
                return


@hookimpl
def register_components(register: Register) -> None:
    register("contrastive", Contrastive)
