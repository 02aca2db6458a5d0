"""Linear recurrences over a sequence, in chunks: products of matrices within a chunk, a small state between chunks.

Linear attention, retention and state-space duality are one recurrence, the (gated) delta rule another:

    linear   S_t = a_t · S_{t-1} + k_t v_tᵀ                            y_t = S_tᵀ q_t
    delta    S_t = a_t · S_{t-1} + β_t k_t (v_t - a_t S_{t-1}ᵀ k_t)ᵀ   y_t = S_tᵀ q_t

with a decay a_t = exp(log_decay_t) in (0, 1], one for all of S or one for each of its rows, that is for each channel of
the keys. Dao & Gu 2024 (arXiv:2405.21060, section 6) and Yang et al. 2024 (arXiv:2406.06484, arXiv:2412.06464) give the
chunked forms, Kimi Team 2025 (arXiv:2510.26692) that for channels. A third, `diagonal_scan`, has a decay for every
number of the state. A token at position 0 begins a document: the state is empty there. Work is done in float32 or
wider; a state carried over many tokens would drown in bfloat16's rounding.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import flop_registry, register_flop_formula

from lamina.core.context import Span

CHUNK = 64  # tokens; work within a chunk grows with it, the number of states between chunks shrinks
UNIT_EPS = 1e-6  # added to a squared length
BLOCK = 16  # tokens of a chunk between which decays of channels are multiplied out pair by pair


def linear_scan(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None, queries: Span, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """S_t = a_t · S_{t-1} + k_t v_tᵀ,  y_t = S_tᵀ q_t.

    q and k (B, G, T, N), v (B, H, T, P) with H a multiple of G, `log_decay` (1 or B, H, T or 1), or with a last axis of
    N channels, or None for no decay, `state` (B, H, N, P) from before these tokens or None -> y (B, H, T, P) in float32
    or wider, the state after them.
    """
    with _exact(v.device):
        if v.shape[2] == 1:
            return _step(q, k, v, log_decay, queries, state, None)
        heads = _Heads.of(q, k, v, log_decay, queries, state)
        (scores,) = heads.products(heads.q)
        y = scores @ heads.v  # (B, G, R, Z, C, P)
        added = (heads.k * heads.leaving).mT @ heads.v  # (B, G, R, Z, N, P)
        state, before = _pass_on(heads.across.movedim(3, 1), added.movedim(3, 1), heads.state)
        y = y + (heads.q * heads.entering) @ before.movedim(1, 3)
        return heads.whole(y, state)


def delta_scan(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor | None, queries: Span, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """S_t = a_t · S_{t-1} + β_t k_t (v_t - a_t S_{t-1}ᵀ k_t)ᵀ,  y_t = S_tᵀ q_t.

    As `linear_scan`, with the writing strength `beta` (B, H, T); keys should have unit length.
    """
    with _exact(v.device):
        if v.shape[2] == 1:
            return _step(q, k, v, log_decay, queries, state, beta)
        heads = _Heads.of(q, k, v, log_decay, queries, state, beta)
        # What the tokens of a chunk write depends on what those before them wrote: a triangular system for all at once.
        strength = heads.beta.unsqueeze(-1)
        alike, scores = heads.products(heads.k, heads.q)
        system = (strength * alike).tril(-1)
        given = torch.cat([heads.v * strength, heads.k * (strength * heads.entering)], -1)
        solved = torch.linalg.solve_triangular(system, given, upper=False, unitriangular=True)
        written, erased = solved.split_with_sizes([v.shape[-1], k.shape[-1]], -1)
        read, kept_keys = heads.q * heads.entering, (heads.k * heads.leaving).mT
        state, states, news = heads.state.flatten(0, 2), [], []  # (B·H, N, P)
        fades = heads.across.expand(*written.shape[:4], -1, -1)
        chunks = (x.flatten(0, 2).unbind(1) for x in (written, erased, kept_keys.expand(*erased.mT.shape), fades))
        for own, seen, keys, fade in zip(*chunks, strict=True):
            states.append(state)
            news.append(torch.baddbmm(own, seen, state, alpha=-1))  # (B·H, C, P)
            state = torch.baddbmm(fade * state, keys, news[-1])
        before, new = (torch.stack(x, 1).view(*written.shape[:4], -1, written.shape[-1]) for x in (states, news))
        return heads.whole(read @ before + scores @ new, state.view_as(heads.state))


def unit(x: Tensor) -> Tensor:
    """(..., N) -> the same in float32 or wider, of length one, as the delta rule wants its keys"""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    return x * (x.square().sum(-1, keepdim=True) + UNIT_EPS).rsqrt()


def spread_steps(bias: Tensor, low: float, high: float) -> None:
    """Start a bias so that softplus(bias) lies between `low` and `high`, even on a logarithmic scale."""
    step = bias.uniform_(math.log(low), math.log(high)).exp_()
    bias.copy_(step + (-(-step).expm1()).log())  # the inverse of softplus


def diagonal_scan(decay: Tensor, added: Tensor, queries: Span, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """h_t = decay_t · h_{t-1} + added_t, each number by itself.

    decay and added (B, T, …) alike in shape and dtype, decay in [0, 1], `state` (B, …) from before these tokens or None
    -> h (B, T, …), and the last of them (B, …). Autograd keeps decay and h, and none of the steps.
    """
    state = torch.zeros_like(added[:, 0]) if state is None else state.to(added.dtype)
    if queries.documents is not None:
        begins = (queries.positions == 0).view(*queries.positions.shape, *[1] * (added.dim() - 2))
        decay = decay.masked_fill(begins, 0.0)
    if added.shape[1] == 1:
        h = torch.addcmul(added, decay, state.unsqueeze(1))
    else:
        h = _DiagonalScan.apply(decay, added, state)  # type: ignore[no-untyped-call]
    return h, h[:, -1]


class _DiagonalScan(torch.autograd.Function):
    """The slope of h_t gathers what all later tokens made of it: the same recurrence, run from the end."""

    @staticmethod
    def forward(ctx: Any, decay: Tensor, added: Tensor, state: Tensor) -> Tensor:
        h = _recur(decay, added, state)
        ctx.save_for_backward(decay, h, state)
        return h

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        decay, h, state = ctx.saved_tensors
        later = torch.cat([decay[:, 1:], torch.zeros_like(decay[:, :1])], 1)
        gathered = _recur(later, slope, torch.zeros_like(state), from_end=True)
        before = torch.cat([state.unsqueeze(1), h[:, :-1]], 1)
        return gathered * before, gathered, gathered[:, 0] * decay[:, 0]


def _recur(decay: Tensor, added: Tensor, state: Tensor, from_end: bool = False) -> Tensor:
    """h_t = decay_t · h_{t-1} + added_t along axis 1, or h_{t+1} in place of h_{t-1}; decay may be broadcast behind it.

    Runs of tokens go side by side, twice: once for what each makes of nothing, then from what stands before it. That is
    about 2·sqrt(T) steps in place of T.
    """
    length = added.shape[1]
    run = math.isqrt(max(0, length - 1)) + 1
    n_runs = -(-length // run)
    if extra := n_runs * run - length:
        decay, added = (F.pad(x, [0] * (2 * (x.dim() - 2)) + [0, extra]) for x in (decay, added))
    fade, more = (x.view(len(x), n_runs, run, *x.shape[2:]).unbind(2) for x in (decay, added))  # each (B, n_runs, …)
    order = range(run - 1, -1, -1) if from_end else range(run)
    h, kept = more[order[0]], fade[order[0]]
    for step in order[1:]:
        h, kept = torch.addcmul(more[step], fade[step], h), kept * fade[step]
    starts = [state] * n_runs
    for index in range(n_runs - 1, -1, -1) if from_end else range(n_runs):
        starts[index] = state
        state = torch.addcmul(h[:, index], kept[:, index], state)
    h, rows = torch.stack(starts, 1), [more[0]] * run
    for step in order:
        h = rows[step] = torch.addcmul(more[step], fade[step], h)
    return torch.stack(rows, 2).flatten(1, 2)[:, :length]


def _pass_on(kept: Tensor, added: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The state after all chunks, and before each: kept (B, Z, …, 1 or N, 1), added (B, Z, …, N, P)"""
    after = _recur(kept, added, state)
    return after[:, -1], torch.cat([state.unsqueeze(1), after[:, :-1]], 1)


@dataclass
class _Heads:
    """Inputs cut into Z chunks of C tokens, with R = H / G heads of values to a head of keys; decays between tokens,
    whose last axis has one entry or one for each channel of the keys."""

    q: Tensor  # (B, G, 1, Z, C, N)
    k: Tensor
    v: Tensor  # (B, G, R, Z, C, P)
    beta: Tensor  # (B, G, R, Z, C)
    state: Tensor  # (B, G, R, N, P)
    log_decay: Tensor  # (…, Z, C, 1 or N)
    visible: Tensor  # (…, C, C) whether token i sees token j of its chunk
    entering: Tensor  # (…, Z, C, 1 or N) decay from before the chunk to token i
    leaving: Tensor  # (…, Z, C, 1 or N) decay from token j to the chunk's end
    across: Tensor  # (…, Z, 1 or N, 1) decay over the whole chunk
    length: int

    @staticmethod
    def of(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        log_decay: Tensor | None,
        queries: Span,
        state: Tensor | None,
        beta: Tensor | None = None,
    ) -> _Heads:
        batch, groups, length, width = k.shape
        n_heads, dtype = v.shape[1], torch.promote_types(v.dtype, torch.float32)
        chunk = min(CHUNK, length)
        ratio = n_heads // groups

        def cut(x: Tensor, per_group: int) -> Tensor:
            """(B, G·per_group, T, …) -> (B, G, per_group, Z, C, …), the last chunk filled with zeros"""
            x = x.to(dtype)
            if extra := -length % chunk:
                x = F.pad(x, (0, 0) * (x.dim() - 3) + (0, extra))
            return x.reshape(x.shape[0], -1, per_group, x.shape[2] // chunk, chunk, *x.shape[3:])

        if log_decay is None:
            log_decay = torch.zeros(1, 1, 1, dtype=dtype, device=v.device)
        log_decay = log_decay if log_decay.dim() == 4 else log_decay.unsqueeze(-1)
        per_group = ratio if log_decay.shape[1] == n_heads else 1
        decay = cut(log_decay.expand(-1, -1, length, -1), per_group)  # (…, Z, C, 1 or N)
        visible = torch.ones(chunk, chunk, dtype=torch.bool, device=v.device).tril()
        entering, leaving = decay.cumsum(-2), _still_to_come(decay)
        across = entering[..., -1, :].unsqueeze(-1)
        if queries.documents is not None:
            # Documents begun since the chunk's start: equal numbers are one document, 0 is that of the state before it.
            begun = cut((queries.positions == 0).unsqueeze(1), 1).cumsum(-1)  # (B, 1, 1, Z, C)
            last = begun[..., -1:]
            visible = visible & (begun.unsqueeze(-1) == begun.unsqueeze(-2))
            entering = entering.masked_fill((begun > 0).unsqueeze(-1), -torch.inf)
            leaving = leaving.masked_fill((begun != last).unsqueeze(-1), -torch.inf)
            across = across.masked_fill((last > 0).unsqueeze(-1), -torch.inf)
        if state is None:
            state = torch.zeros(batch, n_heads, width, v.shape[-1], dtype=dtype, device=v.device)
        return _Heads(
            cut(q, 1),
            cut(k, 1),
            cut(v, ratio),
            cut(beta, ratio) if beta is not None else decay,
            state.to(dtype).view(batch, groups, ratio, width, -1),
            decay,
            visible,
            entering.exp(),
            leaving.exp(),
            across.exp(),
            length,
        )

    def products(self, *readers: Tensor) -> list[Tensor]:
        """Each of the readers (B, G, 1, Z, C, N) times the keys, as far as those have faded: (B, G, R, Z, C, C)"""
        if self.log_decay.shape[-1] == 1:
            faded = _between(self.log_decay).squeeze(-1).exp().masked_fill(~self.visible, 0.0)
            return [reader @ self.k.mT * faded for reader in readers]
        # exp(Σ decays) parts into a factor on the reader and one on the key, neither above one, where a token lies
        # between the two. Within a block there is none for all pairs, and each pair of tokens has decays of its own.
        rows: list[list[Tensor]] = [[] for _ in readers]
        for start in range(0, self.k.shape[-2], BLOCK):
            block = slice(start, start + BLOCK)
            decay, keys = self.log_decay[..., block, :], self.k[..., block, :]
            own = keys.unsqueeze(-3) * _between(decay).exp()  # (B, G, R, Z, block, block, N)
            earlier = self.k[..., :start, :] * _still_to_come(self.log_decay[..., :start, :]).exp()
            since = decay.cumsum(-2).exp()
            later = self.k.new_zeros(*own.shape[:-2], self.k.shape[-2] - start - keys.shape[-2])
            for reader, found in zip(readers, rows, strict=True):
                part = reader[..., block, :]
                own_products = (own @ part.unsqueeze(-1)).squeeze(-1)
                found.append(torch.cat([(part * since) @ earlier.mT, own_products, later], -1))
        return [torch.cat(found, -2).masked_fill(~self.visible, 0.0) for found in rows]

    def whole(self, y: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Chunks and groups joined again: (B, H, T, P), (B, H, N, P)"""
        y = y.flatten(3, 4).flatten(1, 2)
        return y[:, :, : self.length], state.flatten(1, 2)


def _between(decay: Tensor) -> Tensor:
    """(…, C, N) -> (…, C, C, N): the sum of the decays after token j up to token i, 0 where i comes no later."""
    # Summed for each pair by itself: a difference of two sums over the chunk would lose digits to what lies before.
    after = torch.ones(decay.shape[-2], decay.shape[-2], dtype=torch.bool, device=decay.device).tril(-1)
    return decay.unsqueeze(-2).masked_fill(~after.unsqueeze(-1), 0.0).cumsum(-3)


def _still_to_come(decay: Tensor) -> Tensor:
    """(…, C, N) -> the same: for each token the sum of the decays after it."""
    return F.pad(decay[..., 1:, :].flip(-2).cumsum(-2).flip(-2), (0, 0, 0, min(1, decay.shape[-2])))


def _step(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None, queries: Span, state: Tensor | None, beta: Tensor | None
) -> tuple[Tensor, Tensor]:
    """One token: the recurrence as it is written, the delta rule when `beta` (B, H, 1) is given."""
    dtype = torch.promote_types(v.dtype, torch.float32)
    batch, groups, _, width = k.shape
    q, k = q.to(dtype).unsqueeze(2), k.to(dtype).unsqueeze(2)  # (B, G, 1, 1, N)
    v = v.to(dtype).view(batch, groups, -1, 1, v.shape[-1])  # (B, G, R, 1, P)
    if state is None:
        state = torch.zeros(batch, groups, v.shape[2], width, v.shape[-1], dtype=dtype, device=v.device)
    else:
        state = state.to(dtype)
        if log_decay is not None:
            fade = log_decay.to(dtype).exp()
            state = state * (fade.mT if fade.dim() == 4 else fade.unsqueeze(-1))
        if queries.documents is not None:
            state = state.masked_fill((queries.positions == 0)[..., None, None], 0.0)
        state = state.view(batch, groups, -1, width, v.shape[-1])
    if beta is not None:
        v = beta.to(dtype).view(batch, groups, -1, 1, 1) * (v - k @ state)
    state = state + k.mT @ v
    return (q @ state).flatten(1, 2), state.flatten(1, 2)


def _exact(device: torch.device) -> AbstractContextManager[Any]:
    """Products in the dtype of their inputs, whatever autocast says."""
    if torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


if torch.ops.aten.linalg_solve_triangular not in flop_registry:

    @register_flop_formula(torch.ops.aten.linalg_solve_triangular)
    def _solve_flops(system: Any, given: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
        """A multiply-add for each entry of the triangle and each right-hand side; torch tells no cost of its own."""
        rows, columns = out_shape[-2:]
        batch = out_shape.numel() // (rows * columns)
        return int(batch * rows * rows * columns)
