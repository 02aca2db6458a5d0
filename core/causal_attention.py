"""Causal softmax attention with its gradient as products of blocks, for training on a CPU.

A block of queries meets the keys up to its end at once, so that what causality hides is left out and what remains are
products large enough for a BLAS: at a few hundred tokens twice as fast as torch's kernel, which walks through tiles.
Scores exist for one block of one sequence at a time; the backward pass works them out again from queries and keys.

    P = softmax(q·kᵀ · scale),  y = P·v
    dv = Pᵀ·dy,  dS = P ∘ (dy·vᵀ - Σ P ∘ dy·vᵀ),  dq = dS·k · scale,  dk = dSᵀ·q · scale
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

BLOCK = 128  # queries


def causal_attention(
    q: Tensor, k: Tensor, v: Tensor, scale: float, allowed: Tensor | None = None, reach: int | None = None
) -> Tensor:
    """softmax(q·kᵀ · scale) · v of the keys up to each query's own.

    q (B, H, T, Dh), k (B, K, T, Dh), v (B, K, T, Dv) with H a multiple of K -> (B, H, T, Dv).
    `allowed` (1 or B, T, T) bool hides more keys, never a query's own; of keys further back than the last `reach`, the
    query's own among them, it must hide all.
    """
    out: Tensor = torch.ops.lamina.causal_attention(q, k, v, scale, allowed, reach)
    return out


@torch.library.custom_op("lamina::causal_attention", mutates_args=())
def _forward(
    q: Tensor, k: Tensor, v: Tensor, scale: float, allowed: Tensor | None, reach: int | None
) -> Tensor:  # one operator to torch.compile, which would otherwise unroll the loop
    out = _like_heads(q, v.shape[-1])
    with torch.autocast(q.device.type, enabled=False):
        for block in _blocks(q, k, v, scale, allowed, reach):
            block.rows_of(out).copy_(block.per_head(torch.bmm(block.weights(), block.v)))
    return out


@torch.library.custom_op("lamina::causal_attention_backward", mutates_args=())
def _backward(
    gradient: Tensor, q: Tensor, k: Tensor, v: Tensor, scale: float, allowed: Tensor | None, reach: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    dq, dk, dv = _like_heads(q, q.shape[-1]), _like_heads(k, k.shape[-1]), _like_heads(v, v.shape[-1])
    with torch.autocast(q.device.type, enabled=False):
        for block in _blocks(q, k, v, scale, allowed, reach):
            if block.start == 0:
                # Sums over blocks, contiguous: added to in a strided place they would be copied there and back.
                sum_k, sum_v = (torch.zeros_like(one[0], memory_format=torch.contiguous_format) for one in (k, v))
            weights, dy = block.weights(), block.fold(block.rows_of(gradient))
            sum_v[:, block.first : block.end].baddbmm_(weights.transpose(1, 2), dy)
            by_weights = torch.bmm(dy, block.v.transpose(1, 2))
            by_scores = torch._softmax_backward_data(by_weights, weights, -1, weights.dtype)
            block.rows_of(dq).copy_(block.per_head(torch.bmm(by_scores, block.k).mul_(scale)))
            sum_k[:, block.first : block.end].baddbmm_(by_scores.transpose(1, 2), block.q)
            if block.end == q.shape[2]:
                dk[block.row], dv[block.row] = sum_k, sum_v
    return dq, dk, dv


class _Block:
    """Some queries of one sequence, and the keys from the first to the last any of them may see."""

    def __init__(self, row: int, start: int, end: int, first: int, inputs: tuple[Any, ...]) -> None:
        q, k, v, scale, allowed, self.later = inputs
        self.row, self.start, self.end, self.first = row, start, end, first
        self.groups = q.shape[1] // k.shape[1]
        self.q = self.fold(self.rows_of(q) * scale)  # (K, G·M, Dh)
        self.k, self.v = k[row, :, first:end], v[row, :, first:end]  # (K, N, …)
        self.allowed = None if allowed is None else allowed[min(row, len(allowed) - 1), start:end, first:end]  # (M, N)

    def weights(self) -> Tensor:
        """(K, G·M, N)"""
        scores = torch.bmm(self.q, self.k.transpose(1, 2))
        if self.allowed is None:
            n = self.end - self.start  # only among the block's own keys some are later
            self.per_head(scores)[..., -n:].add_(self.later[:n, :n])
        else:
            self.per_head(scores).masked_fill_(~self.allowed, -torch.inf)
        return scores.softmax(-1)

    def rows_of(self, x: Tensor) -> Tensor:
        """(B, H, T, D) -> (H, M, D)"""
        return x[self.row, :, self.start : self.end]

    def fold(self, x: Tensor) -> Tensor:
        """(H, M, D) -> (K, G·M, D): queries that share a head of keys side by side"""
        return x if self.groups == 1 else x.reshape(-1, self.groups * x.shape[1], x.shape[2])

    def per_head(self, x: Tensor) -> Tensor:
        """(K, G·M, D) -> (H, M, D)"""
        return x.view(-1, self.end - self.start, x.shape[2])


def _blocks(
    q: Tensor, k: Tensor, v: Tensor, scale: float, allowed: Tensor | None, reach: int | None
) -> Iterator[_Block]:
    """Row by row, from the first query to the last."""
    batch, length = q.shape[0], q.shape[2]
    later = torch.full((BLOCK, BLOCK), -torch.inf, dtype=q.dtype, device=q.device).triu_(1)
    for row in range(batch):
        for start in range(0, length, BLOCK):
            first = 0 if reach is None else max(0, start - reach + 1)
            yield _Block(row, start, min(start + BLOCK, length), first, (q, k, v, scale, allowed, later))


def _like_heads(x: Tensor, width: int) -> Tensor:
    """Room for (B, heads of x, T, width), heads side by side in memory as projections give and take them."""
    batch, heads, length, _ = x.shape
    return x.new_empty(batch, length, heads, width).transpose(1, 2)


@_forward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, scale: float, allowed: Tensor | None, reach: int | None) -> Tensor:
    return _like_heads(q, v.shape[-1])


@_backward.register_fake
def _(
    gradient: Tensor, q: Tensor, k: Tensor, v: Tensor, scale: float, allowed: Tensor | None, reach: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    return _like_heads(q, q.shape[-1]), _like_heads(k, k.shape[-1]), _like_heads(v, v.shape[-1])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    q, k, v, ctx.scale, allowed, ctx.reach = inputs
    ctx.save_for_backward(q, k, v, allowed)


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    q, k, v, allowed = ctx.saved_tensors
    backward = torch.ops.lamina.causal_attention_backward
    return *backward(gradient, q, k, v, ctx.scale, allowed, ctx.reach), None, None, None


_forward.register_autograd(_differentiate, setup_context=_keep)
