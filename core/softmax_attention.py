"""Which keys a query sees, and softmax attention over them.

`visible` is the one oracle: causality, documents and the mask's pattern combined. `attend` chooses the fastest kernel
that gives the oracle's answer; every path is tested against it. A window of W means W visible keys, the token itself
among them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from lamina.core.causal_attention import causal_attention
from lamina.core.context import Span
from lamina.core.mask import Mask
from lamina.core.product import is_slow

BLOCKS_FROM = 512  # tokens


def visible(mask: Mask, queries: Span, keys: Span) -> Tensor:
    """bool (1 or B, T, S), True where the query may see the key. Worked out once for all layers alike."""
    return queries.once_with(keys, mask.pattern, lambda: _visible(mask, queries, keys))


def _visible(mask: Mask, queries: Span, keys: Span) -> Tensor:
    q, k = queries.positions.unsqueeze(-1), keys.positions.unsqueeze(-2)
    allowed = mask.allowed(q, k)
    allowed = allowed & (k <= q) if mask.causal else allowed.expand(-1, queries.length, keys.length)
    if queries.documents is not None and keys.documents is not None:
        allowed = allowed & (queries.documents.unsqueeze(-1) == keys.documents.unsqueeze(-2))
    return allowed


class Scores:
    """What a bias may be made of besides positions; handed to the function that `Position.bias` returns.

    `scale` multiplies q·kᵀ. What else is here is worked out when it is asked for.
    """

    def __init__(self, q: Tensor, k: Tensor, scale: float, mask: Mask, queries: Span, keys: Span) -> None:
        self.scale = scale
        self._q, self._k, self._mask, self._queries, self._keys = q, k, mask, queries, keys
        self.found: Tensor | None = None  # `values`, once they were asked for

    @property
    def values(self) -> Tensor:
        """q·kᵀ · scale, (B, H, T, S) in float32 or wider, of hidden keys too. Costs the fast kernels."""
        if self.found is None:
            self.found = _scores(self._q, self._k, self.scale)
        return self.found

    @property
    def allowed(self) -> Tensor:
        """bool (1 or B, 1, T, S), True where the query sees the key"""
        return visible(self._mask, self._queries, self._keys).unsqueeze(1)


Bias: TypeAlias = "Tensor | Callable[[Scores], Tensor]"


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Mask,
    queries: Span,
    keys: Span,
    bias: Bias | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Softmax attention.  softmax(cap(q·kᵀ · scale) + bias) · v  over the visible keys.

    q (B, H, T, Dh), k (B, K, S, Dh), v (B, K, S, Dv) with H a multiple of K -> (B, H, T, Dv).
    `bias` (1 or B, H, T, S), or a function of `Scores` that gives it · `scale` 1/sqrt(Dh) by default ·
    `softcap` c: c·tanh(score / c) ·
    `sinks` (H,): a logit per head that takes part in the softmax and adds nothing to the output.
    """
    if is_slow(q.dtype, q.device):
        with torch.autocast(q.device.type, enabled=False):
            wide = attend(
                *(tensor.float() for tensor in (q, k, v)),
                mask=mask,
                queries=queries,
                keys=keys,
                bias=bias,
                scale=scale,
                softcap=softcap,
                sinks=sinks,
            )
        return wide.to(q.dtype)
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    scores = None
    if bias is not None and not isinstance(bias, Tensor):
        asked = Scores(q, k, scale, mask, queries, keys)
        bias, scores = bias(asked), asked.found
    if softcap is not None or sinks is not None or scores is not None:
        scores = _scores(q, k, scale) if scores is None else scores
        return _mix(scores, v, visible(mask, queries, keys), bias, softcap, sinks)
    if bias is None and _worth_blocks(q, k, v, mask, queries, keys):
        allowed = None if _plain_causality(mask, queries, keys) else visible(mask, queries, keys)
        return causal_attention(q, k, v, scale, allowed, mask.reach)
    narrower = q.shape[-1] - v.shape[-1]
    if narrower > 0:  # the fast kernels take one width for all, and earn the padding back several times over
        v = F.pad(v, (0, narrower))
        return attend(q, k, v, mask=mask, queries=queries, keys=keys, bias=bias, scale=scale)[..., :-narrower]
    n_queries, groups = q.shape[2], q.shape[1] // k.shape[1]
    if narrower < 0 and n_queries > 1:  # the same; for a single query it would copy all keys
        q, k = F.pad(q, (0, -narrower)), F.pad(k, (0, -narrower))
    if bias is not None:
        hidden = ~visible(mask, queries, keys).unsqueeze(1)
        bias = bias.to(_wide(q)).masked_fill(hidden, -torch.inf)  # distances are too coarse in bfloat16
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale, enable_gqa=groups > 1)
    if n_queries == 1 and all_visible(mask, queries, keys):
        # One token: the query heads that share a key head become rows of one product, so keys are read once.
        folded = q.reshape(q.shape[0], k.shape[1], groups, -1)
        folded = F.scaled_dot_product_attention(folded, k, v, scale=scale)
        return folded.reshape(*q.shape[:3], v.shape[-1])
    if _plain_causality(mask, queries, keys):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=groups > 1)
    allowed = visible(mask, queries, keys).unsqueeze(1)  # (B, 1, T, S)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, scale=scale, enable_gqa=groups > 1)


def all_visible(mask: Mask, queries: Span, keys: Span) -> bool:
    """Whether a single query sees every key given, as far as can be told without reading tensors."""
    if queries.start is None or keys.documents is not None:
        return False
    if keys.start is None:  # a ring, its entries in any order
        return mask.fills_reach and keys.length == mask.reach
    end = queries.start + 1
    return keys.start == 0 and keys.length == end <= mask.dense_up_to


def _plain_causality(mask: Mask, queries: Span, keys: Span) -> bool:
    """Whether queries and keys are the same run of tokens, and causality alone says which sees which."""
    if not mask.causal or queries.start is None or keys.start != queries.start or keys.length != queries.length:
        return False
    return queries.start + queries.length <= mask.dense_up_to


def _worth_blocks(q: Tensor, k: Tensor, v: Tensor, mask: Mask, queries: Span, keys: Span) -> bool:
    """Whether this is training at a length where products of blocks beat torch's kernel, in precision it is good at."""
    if not (q.is_cpu and q.dtype == torch.float32 and mask.causal and queries is keys and q.shape[2] >= BLOCKS_FROM):
        return False
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (q, k, v))


def _wide(x: Tensor) -> torch.dtype:
    """The dtype for scores: float32, or wider when x is."""
    return torch.promote_types(x.dtype, torch.float32)


def _scores(q: Tensor, k: Tensor, scale: float) -> Tensor:
    """q·kᵀ · scale, (B, H, T, S) in float32 or wider"""
    batch, n_heads, n_queries, width = q.shape
    scores = q.reshape(batch, k.shape[1], -1, width) @ k.transpose(-1, -2)  # (B, K, G·T, S)
    return (scores.to(_wide(q)) * scale).view(batch, n_heads, n_queries, -1)


def _mix(
    scores: Tensor, v: Tensor, allowed: Tensor, bias: Tensor | None, softcap: float | None, sinks: Tensor | None
) -> Tensor:
    """The rest of the formula as written, for what no kernel takes."""
    batch, n_heads, n_queries, n_keys = scores.shape
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if bias is not None:
        scores = scores + bias
    scores = scores.masked_fill(~allowed.unsqueeze(1), -torch.inf)
    if sinks is not None:
        column = sinks.to(scores.dtype).view(1, -1, 1, 1).expand(batch, -1, n_queries, 1)
        weights = torch.cat([scores, column], -1).softmax(-1)[..., :-1]
    else:
        weights = scores.softmax(-1)
    weights = weights.to(v.dtype).view(batch, v.shape[1], -1, n_keys)  # (B, K, G·T, S)
    return (weights @ v).view(batch, n_heads, n_queries, -1)
