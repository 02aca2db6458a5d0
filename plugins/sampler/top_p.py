"""Top-p (nucleus): keep the smallest set of most likely tokens whose probabilities reach p.

Holtzman et al. 2019, arXiv:1904.09751.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from lamina.core import ComponentConfig, History, Register, Sampler, hookimpl

HEAD = 1024  # most sets are smaller, and sorting a whole vocabulary takes over ten times as long


class TopPConfig(ComponentConfig):
    p: float = Field(0.95, gt=0, le=1, description="Probability the kept tokens reach together; 1 keeps all.")


class TopP(Sampler):
    """Keep the fewest tokens that together reach probability p, at least one."""

    Config = TopPConfig
    paper = "Holtzman et al. 2019, arXiv:1904.09751"
    only_removes = keeps_best = forgetful = True

    def __init__(self, config: TopPConfig) -> None:
        self.p = config.p

    def forward(self, logits: Tensor, history: History) -> Tensor:
        if self.p == 1:  # a rounded sum may reach 1 before the last token
            return logits
        out, reached = self._keep(logits, min(HEAD, logits.shape[-1]))
        if not bool(reached.all()):
            out[~reached] = self._keep(logits[~reached], logits.shape[-1])[0]
        return out

    def _keep(self, logits: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """Logits with all but the set removed, looked for among the n most likely; (B,) bool, whether those reach p."""
        likely, order = logits.softmax(-1).topk(n)  # (B, n)
        total = likely.cumsum(-1)
        needed = torch.ones_like(total, dtype=torch.bool)
        needed[:, 1:] = total[:, :-1] < self.p  # those before do not reach p yet
        kept = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, needed)
        return logits.masked_fill(~kept, -torch.inf), total[:, -1] >= self.p


@hookimpl
def register_components(register: Register) -> None:
    register("top_p", TopP)
