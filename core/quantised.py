"""Linear layers whose weights are kept in 8 or 4 bits, in groups of 32 along the input with scales of their own.

    int8   w = s · q            q from -127 to 127, s float16: 8.5 bits a weight
    int4   w = s · q + m        q from 0 to 15, s and m float16: 5 bits a weight

Only weights are rounded: products are those of the widened weights, in the precision of the activations. `widen` is the
meaning; the kernels multiply without widening, and tests hold them to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lamina.core.module import Linear, OutLinear
from lamina.core.native import GROUP, INT4, INT8, KINDS, Weight, library

ROWS_AT_ONCE = 1 << 22  # weights looked at together while they are rounded
FEW_ROWS = 16  # rows of x up to which weights are multiplied as they lie; more make widening them worth while
SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8)  # how much of a group's range its 16 values may span


@dataclass(eq=False)
class Quantised:
    """The weights of one layer, (out, in)."""

    bits: int
    q: Tensor  # (out, in) int8, or (out, in / 2) uint8: a group's first 16 in the low halves, its last in the high ones
    scales: Tensor  # (out, in / 32) float16
    offsets: Tensor | None  # (out, in / 32) float16, of 4 bits alone

    @property
    def kind(self) -> int:
        """What the kernels call it."""
        return INT8 if self.bits == 8 else INT4

    @property
    def shape(self) -> tuple[int, int]:
        return self.scales.shape[0], self.scales.shape[1] * GROUP

    @property
    def nbytes(self) -> int:
        return self.q.nbytes + self.scales.nbytes + (0 if self.offsets is None else self.offsets.nbytes)

    def weight(self) -> Weight:
        """For the kernels, as long as this lives."""
        offsets = None if self.offsets is None else self.offsets.data_ptr()
        out, width = self.shape
        pointers = {"data": self.q.data_ptr(), "scales": self.scales.data_ptr(), "offsets": offsets, "bias": None}
        return Weight(kind=self.kind, out=out, width=width, **pointers)

    def widen(self, dtype: torch.dtype, out: Tensor | None = None) -> Tensor:
        """The weights in full, (out, in), written to `out` where that is given."""
        out = torch.empty(self.shape, dtype=dtype, device=self.q.device) if out is None else out
        kernels = library()
        if kernels is None or dtype not in KINDS or self.q.device.type != "cpu":
            return out.copy_(self.plainly_widened())
        kernels.widen(self.weight(), out)
        return out

    def plainly_widened(self) -> Tensor:
        """The same in float32 by torch alone."""
        rows, groups = self.scales.shape
        if self.offsets is None:
            return (self.q.view(rows, groups, GROUP).float() * self.scales.float().unsqueeze(-1)).view(rows, -1)
        halves = self.q.view(rows, groups, GROUP // 2)
        q = torch.cat([halves & 15, halves >> 4], -1).float()
        return (q * self.scales.float().unsqueeze(-1) + self.offsets.float().unsqueeze(-1)).view(rows, -1)


def can_quantise(weight: Tensor) -> bool:
    """Whether the input divides into groups."""
    return weight.dim() == 2 and weight.shape[1] % GROUP == 0 and weight.is_floating_point()


@torch.no_grad()
def quantise(weight: Tensor, bits: int) -> Quantised:
    """Round (out, in) weights, `in` a multiple of 32, to 8 or 4 bits."""
    rows = max(1, ROWS_AT_ONCE // weight.shape[1])
    parts = [_round(part.float().view(len(part), -1, GROUP), bits) for part in torch.split(weight.detach(), rows)]
    q, scales, offsets = (torch.cat([part[i] for part in parts]) for i in range(3))
    return Quantised(bits, q.flatten(1).contiguous(), scales, offsets if bits == 4 else None)


def _round(groups: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """(out, G, 32) -> q, scales and offsets"""
    if bits == 8:
        scales = (groups.abs().amax(-1, keepdim=True) / 127).half()
        q = (groups / _safe(scales.float())).round().clamp(-127, 127)
        return q.to(torch.int8), scales.squeeze(-1), scales.squeeze(-1)
    low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    best: tuple[Tensor, ...] | None = None
    for shrink in SHRINKS:
        middle, half = (low + high) / 2, (high - low) / 2 * shrink
        scale, offset = half * 2 / 15, middle - half
        q = ((groups - offset) / _safe(scale)).round().clamp(0, 15)
        # The scale and offset that these 16 values are best read with: a straight line through (q, w).
        centred = q - q.mean(-1, keepdim=True)
        spread = centred.square().sum(-1, keepdim=True)
        fitted = (centred * groups).sum(-1, keepdim=True) / _safe(spread)
        scale = torch.where(spread > 0, fitted, scale).half().float()
        offset = (groups.mean(-1, keepdim=True) - scale * q.mean(-1, keepdim=True)).half().float()
        error = (scale * q + offset - groups).square().sum(-1, keepdim=True)
        if best is None:
            best = error, q, scale, offset
        else:
            better = error < best[0]
            best = tuple(
                torch.where(better, new, old) for new, old in zip((error, q, scale, offset), best, strict=True)
            )
    assert best is not None
    _, q, scale, offset = best
    packed = q.to(torch.uint8)
    packed = packed[..., : GROUP // 2] | packed[..., GROUP // 2 :] << 4
    return packed, scale.half().squeeze(-1), offset.half().squeeze(-1)


def _safe(x: Tensor) -> Tensor:
    return torch.where(x == 0, 1.0, x)


class QuantisedLinear(nn.Module):
    """A `Linear` whose weights are rounded. `weight` gives them widened, for whoever needs more than the product."""

    def __init__(self, quantised: Quantised, bias: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.quantised, self.dtype = quantised, dtype
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
        self.out_features, self.in_features = quantised.shape

    @property
    def weight(self) -> Tensor:
        return self.quantised.widen(self.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)"""
        kernels, rows = library(), x.numel() // x.shape[-1]
        if kernels is None or not 0 < rows <= FEW_ROWS or torch.is_grad_enabled():
            return F.linear(x, self.quantised.widen(x.dtype), self.bias)
        out = torch.empty(rows, self.out_features)
        kernels.linear(self.quantised.weight(), x.detach().float().reshape(rows, -1).contiguous(), out)
        out = out if self.bias is None else out + self.bias
        return out.view(*x.shape[:-1], -1).to(x.dtype)


def linears(module: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    """Each linear layer below, with what holds it and its name there. Not those of routers, which choose by little."""
    for parent in module.modules():
        for name, child in parent.named_children():
            if type(child) in (Linear, OutLinear):
                assert isinstance(child, nn.Linear)
                yield parent, name, child
