"""The token shift of RWKV: what each token's predecessor is, in one call or in several."""

from __future__ import annotations

import torch
from torch import Tensor

from lamina.core.context import Span


def token_shift(x: Tensor, queries: Span, last: Tensor | None = None) -> Tensor:
    """x_{t-1} for every t, zero for the first token of a document.

    x (B, T, D) and `last` (B, D), the token before these: x[:, -1] of the call before, kept in a register.
    """
    begin = torch.zeros_like(x[:, :1]) if last is None else last.to(x.dtype).unsqueeze(1)
    return torch.cat([begin, x[:, :-1]], 1).masked_fill((queries.positions == 0).unsqueeze(-1), 0.0)
