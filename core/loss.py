"""The training loss, worked out from the head's logits a few rows at a time.

The logits of a large vocabulary are the largest tensor of a training step, and the loss needs each row of them once.
So only a share of the rows has logits at a time: of each the loss, and at once its gradient, is formed, and what
remains is the gradient by what the head read and by the head's own parameters. The head is called as it is, whatever it
does, and autograd differentiates it: no formula stands here a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from lamina.core.data import IGNORED, Batch

# On a CPU, which the meta device stands for, a share that stays in the cache; elsewhere one that keeps the device busy.
LOGITS_AT_ONCE = {"cpu": 1 << 22, "meta": 1 << 22}
LOGITS_AT_ONCE_ELSEWHERE = 1 << 26
LEAST_ROWS = 512  # every share adds to the gradient of the whole head: with fewer rows that would be most of the work

PartLoss = Callable[[Tensor, int, int], Tensor]  # (M, D), the rows it stands for, from and to -> their loss, summed


def sum_losses(logits: Tensor, batch: Batch) -> Tensor:
    """The sum of every target's cross-entropy, worked out in float32; logits (B, T, V)."""
    weights = None if batch.weights is None else batch.weights.flatten()
    return _sum(logits.flatten(0, 1), batch.targets.flatten(), weights)


def head_losses(head: nn.Module, x: Tensor, batch: Batch, vocab_size: int) -> Tensor:
    """`sum_losses(head(x), batch)` without holding more logits than need be; x is what the head reads, (B, T, D).

    The gradients are those of the plain form up to the order in which shares are summed. It has no second derivative.
    """
    rows, targets = x.flatten(0, 1), batch.targets.flatten()
    weights = None if batch.weights is None else batch.weights.flatten()
    share = rows_at_once(vocab_size, x.device)
    if len(rows) <= share:
        return sum_losses(head(x), batch)

    def part(piece: Tensor, start: int, end: int) -> Tensor:
        return _sum(head(piece), targets[start:end], None if weights is None else weights[start:end])

    learned = [parameter for parameter in head.parameters() if parameter.requires_grad]
    if torch.is_grad_enabled() and (rows.requires_grad or learned):
        total: Tensor = _InShares.apply(part, share, rows, *learned)  # type: ignore[no-untyped-call]
        return total
    return torch.stack([part(rows[start:end], start, end) for start, end in _shares(len(rows), share)]).sum()


def rows_at_once(vocab_size: int, device: torch.device) -> int:
    return max(LEAST_ROWS, LOGITS_AT_ONCE.get(device.type, LOGITS_AT_ONCE_ELSEWHERE) // vocab_size)


def _sum(logits: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
    """logits (N, V), targets (N,), weights (N,) or None -> the sum of every target's cross-entropy"""
    if weights is None:
        return F.cross_entropy(logits.float(), targets, reduction="sum", ignore_index=IGNORED)
    each = F.cross_entropy(logits.float(), targets, reduction="none", ignore_index=IGNORED)
    return (each * weights).sum()


def _shares(n_rows: int, size: int) -> list[tuple[int, int]]:
    """From and to of shares of nearly equal size, none larger than `size`."""
    size = -(-n_rows // -(-n_rows // size))
    return [(start, min(start + size, n_rows)) for start in range(0, n_rows, size)]


class _InShares(torch.autograd.Function):
    """Σ part(rows of a share), its gradients formed with the loss."""

    @staticmethod
    def forward(ctx: Any, part: PartLoss, size: int, rows: Tensor, *learned: Tensor) -> Tensor:
        by_rows = torch.empty_like(rows) if rows.requires_grad else None
        # A share's gradient in bfloat16 is too coarse to add others to.
        ctx.by_learned = [torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32)) for p in learned]
        losses = []
        for start, end in _shares(len(rows), size):
            piece = rows[start:end].detach().requires_grad_(rows.requires_grad)
            with torch.enable_grad():
                loss = part(piece, start, end)
            asked: Sequence[Tensor] = [piece, *learned] if rows.requires_grad else learned
            found = list(torch.autograd.grad(loss, asked, materialize_grads=True))
            if by_rows is not None:
                by_rows[start:end] = found.pop(0)
            for total, one in zip(ctx.by_learned, found, strict=True):
                total += one
            losses.append(loss.detach())
        ctx.save_for_backward(by_rows)
        return torch.stack(losses).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        (by_rows,) = ctx.saved_tensors
        # The sums become the gradients without a copy, so they are there once.
        by_learned, ctx.by_learned = ctx.by_learned, None
        by_rows = None if by_rows is None else by_rows.mul_(scale)
        return None, None, by_rows, *(total.mul_(scale) for total in by_learned)
