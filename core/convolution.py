"""The short convolution of state-space and linear-attention layers: each channel mixed over its last few tokens."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lamina.core.context import Span


def causal_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, queries: Span, tail: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """y_t = bias + Σ_j weight[:, W-1-j] · x_{t-j}  over j < W, for each channel by itself.

    x (B, T, C), weight (C, W), bias (C,) -> y (B, T, C), and the last W - 1 inputs (B, W-1, C), which are the `tail` of
    the next call: keep them in a register. Tokens before the sequence count as zero, and so do those of another
    document: a token at position p of its document reads p tokens back and no further.
    """
    length, width = x.shape[1], weight.shape[1]
    wide = torch.promote_types(x.dtype, torch.float32)
    weight = weight.to(wide)
    past = F.pad(x, (0, 0, width - 1, 0)) if tail is None else torch.cat([tail.to(x.dtype), x], 1)  # (B, W-1+T, C)
    y = x * weight[:, -1]
    for back in range(1, width):
        tap = past[:, width - 1 - back : width - 1 - back + length] * weight[:, -1 - back]
        if queries.documents is not None:
            tap = tap.masked_fill((queries.positions < back).unsqueeze(-1), 0.0)
        y = y + tap
    y = y if bias is None else y + bias.to(wide)
    return y.to(x.dtype), past[:, past.shape[1] - (width - 1) :]
