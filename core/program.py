"""Programs: what layers do to a few rows, written down once as a list of operations that the kernels run in one call.

Decoding a token is hundreds of small operations, and calling each from Python costs more than doing it. A part that
can say what it computes in terms of the operations here overrides `lower`, which mirrors its `forward`; a layer all of
whose parts do so runs as a program, any other as plain torch. The plain path is the reference: tests hold each `lower`
to the `forward` beside it.

A row is one token's channels, float32 whatever the decoder's dtype; `Rows` names channels of every row of a buffer.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from lamina.core.native import KINDS, Op, Weight
from lamina.core.quantised import QuantisedLinear

if TYPE_CHECKING:
    from lamina.core.mask import Mask

Made = TypeVar("Made")
NORM, ROUND, LINEAR, PLACE, SCORE, JOIN, ACTIVATE, ADD, ROUTE, EXPERTS, COMBINE, CLAMP = range(12)
ACTIVATIONS = ("identity", "silu", "gelu", "gelu_tanh", "relu", "relu2", "sigmoid", "quick_gelu")
NORMS = ("rms", "layer")
ROUTES = ("softmax_top_k", "top_k_softmax")


class CannotLower(Exception):
    """Raised by `lower` of a part that no program can say; its layer then runs as plain torch."""


@dataclass(frozen=True)
class Rows:
    """`width` channels from `at` on, of every row of a buffer."""

    buffer: int
    at: int
    width: int

    def part(self, at: int, width: int) -> Rows:
        return replace(self, at=self.at + at, width=width)


@dataclass(frozen=True, eq=False)
class Turns:
    """How a position turns heads: cos and sin (L, turned/2) float32 by position; which channels make a pair."""

    cos: Tensor
    sin: Tensor
    interleaved: bool


class Program:
    """Operations in the order in which they are done. Buffers are lent until `free` is called."""

    def __init__(self, dim: int, dtype: torch.dtype, room: int) -> None:
        if dtype not in KINDS:
            raise CannotLower(f"no kernels for {dtype}")
        self.dtype, self.room = dtype, room  # of the caches; positions that turns must know
        self.stream = Rows(0, 0, dim)
        self.ops: list[Op] = []
        self.weights: list[Weight] = []
        self.layers: list[int] = []  # by state: whose cache
        self.masks: list[Mask] = []
        self.widths, self.times = [dim], [1]
        self.kept: list[Any] = []  # what operations point at
        self.part: Any = None  # whose operations are being added
        self.parts: list[Any] = []  # by operation
        self.products: dict[int, nn.Module] = {}  # by operation: the layer that multiplies
        self._once: dict[Any, Any] = {}
        self._lent: set[int] = set()
        self._experts: Sequence[nn.Module] = ()
        self._choices = 1
        self._rounded: set[int] = set()  # buffers rounded since they were last written

    def branch(self) -> Program:
        """The same so far; what is added to it can be given up."""
        twin = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, (list, set, dict)):
                setattr(twin, name, value.copy())
        return twin

    def once(self, key: Any, make: Callable[[], Made]) -> Made:
        """`make()`, the first time `key` is asked for."""
        if key not in self._once:
            self._once[key] = make()
        made: Made = self._once[key]
        return made

    # ---- operations

    def norm(
        self,
        x: Rows,
        kind: str,
        eps: float,
        weight: Tensor | None,
        bias: Tensor | None = None,
        *,
        out: Rows | None = None,
        heads: int = 1,
    ) -> Rows:
        """Each of `heads` equal parts of a row by itself: (x - mean) / sqrt(mean square + eps) · weight + bias."""
        if self._experts:
            raise CannotLower("a norm within an expert")
        out = out or self.rows(x.width)
        self._add(NORM, x, out, kind=NORMS.index(kind), width=x.width // heads, heads=heads, a=eps, p=weight, r=bias)
        return out

    def linear(self, x: Rows, layer: nn.Module, *, scale: float = 1.0, out: Rows | None = None) -> Rows:
        """scale · (weight · x + bias); within `among`, each expert's own layer of that place for the rows it has."""
        layers = [layer]
        if self._experts:
            name = next(name for name, module in self._experts[0].named_modules() if module is layer)
            layers = [expert.get_submodule(name) for expert in self._experts]
        made = [self._weight(one) for one in layers]
        if made[0].width != x.width:
            raise CannotLower("a product of other channels")
        if made[0].kind not in KINDS.values() and x.buffer not in self._rounded:
            if x.at or x.width != self.widths[x.buffer]:
                raise CannotLower("a quantised product of some channels of a buffer")
            self._add(ROUND, x, x)
            self._rounded.add(x.buffer)
        first = len(self.weights)
        self.weights += made
        if not self._experts:
            out = out or self.rows(made[0].out)
            self.products[len(self.ops)] = layer
            self._add(LINEAR, x, out, weight=first, a=0.0, b=scale)
            return out
        out = self.rows(made[0].out, self._choices)
        chosen = int(self.times[x.buffer] > 1)
        self._add(EXPERTS, x, out, weight=first, k=self._choices, other=chosen, b=scale)
        return out

    def add(self, into: Rows, y: Rows, *, keep: float = 1.0, scale: float = 1.0) -> None:
        """into = keep · into + scale · y"""
        last = self.ops[-1] if self.ops else None
        if last is not None and last.code in (LINEAR, COMBINE) and (last.out, last.out_at) == (y.buffer, y.at):
            straight = last.a == 0.0 and last.source != into.buffer  # the product can be put there at once
            if straight:
                last.out, last.out_at, last.a, last.b = into.buffer, into.at, keep, last.b * scale
                self._rounded.discard(into.buffer)
                return
        self._add(ADD, y, into, width=into.width, a=keep, b=scale)

    def activate(self, x: Rows, name: str, *, times: Rows | None = None, scale: float = 1.0) -> Rows:
        """activation(scale · x), times `times` where it is given"""
        if name not in ACTIVATIONS:
            raise CannotLower(f"activation '{name}'")
        out = self.rows(x.width, self.times[x.buffer])
        other = (-1, 0) if times is None else (times.buffer, times.at)
        kind = ACTIVATIONS.index(name)
        self._add(ACTIVATE, x, out, kind=kind, other=other[0], other_at=other[1], width=x.width, a=scale)
        return out

    def clamp(self, x: Rows, limit: float) -> None:
        """Hold every channel within ±limit."""
        self._add(CLAMP, x, x, width=x.width, a=limit)

    def attend(
        self,
        qkv: Rows,
        layer: int,
        *,
        mask: Mask,
        turns: Turns | None,
        n_heads: int,
        n_kv_heads: int,
        head_dim: int,
        value_dim: int,
        scale: float,
        softcap: float | None = None,
        sinks: Tensor | None = None,
    ) -> Rows:
        """Softmax attention of queries over all cached keys, these among them; `qkv` has the heads side by side."""
        sizes = {"heads": n_heads, "kv_heads": n_kv_heads, "head_width": head_dim, "value_width": value_dim}
        state, which = len(self.layers), len(self.masks)
        self.layers.append(layer)
        self.masks.append(mask)
        kind = KINDS[self.dtype]
        turning: dict[str, Any] = {}
        if turns is not None:
            turning = {"p": turns.cos, "r": turns.sin, "turned": 2 * turns.cos.shape[1]}
            turning["interleaved"] = int(turns.interleaved)
        self._add(PLACE, qkv, qkv, kind=kind, state=state, **sizes, **turning)
        out = self.rows(n_heads * value_dim)
        cap = softcap or 0.0
        self._add(SCORE, qkv, out, kind=kind, state=state, mask=which, a=scale, b=cap, p=sinks, **sizes)
        self._add(JOIN, out, out, state=state, p=sinks, **sizes)
        return out

    def route(self, logits: Rows, kind: str, k: int, *, renormalise: bool = True, scale: float = 1.0) -> None:
        """Choose k experts for every row, until the next `route`."""
        self._choices = k
        kinds = {"kind": ROUTES.index(kind), "k": k, "experts": logits.width}
        self._add(ROUTE, logits, logits, a=float(renormalise), b=scale, **kinds)

    @contextmanager
    def among(self, experts: Sequence[nn.Module]) -> Iterator[None]:
        """Lowering the first of `experts` within stands for each running on the rows that chose it."""
        self._experts = experts
        try:
            yield
        finally:
            self._experts = ()

    def combine(self, y: Rows) -> Rows:
        """The sum of each row's experts by their weights."""
        out = self.rows(y.width)
        self._add(COMBINE, y, out, width=y.width, k=self._choices, a=0.0, b=1.0)
        return out

    # ---- buffers

    def rows(self, width: int, times: int = 1) -> Rows:
        """A buffer of that width that nobody uses; `times` rows for each of the stream's."""
        for index, size in enumerate(zip(self.widths, self.times, strict=True)):
            if index and index not in self._lent and size == (width, times):
                break
        else:
            index = len(self.widths)
            self.widths.append(width)
            self.times.append(times)
        self._lent.add(index)
        return Rows(index, 0, width)

    def free(self) -> None:
        """All buffers but the stream may be used anew."""
        self._lent.clear()
        self._rounded.clear()

    # ---- to the kernels

    def _add(self, code: int, source: Rows, out: Rows, **told: Any) -> None:
        pointers = {}
        for name in ("p", "r"):
            tensor = told.pop(name, None)
            if tensor is not None:
                tensor = tensor.detach().float().contiguous()
                self.kept.append(tensor)
                pointers[name] = tensor.data_ptr()
        told = {"other": -1, "mask": -1, "state": -1, **told, **pointers}
        if code not in (ROUND, ROUTE):
            self._rounded.discard(out.buffer)
        places = {"source": source.buffer, "source_at": source.at, "out": out.buffer, "out_at": out.at}
        self.ops.append(Op(code=code, **places, **told))
        self.parts.append(self.part)

    def _weight(self, layer: nn.Module) -> Weight:
        made = weight_of(layer)
        self.kept.append(made)
        return made[0]


def weight_of(layer: Any) -> tuple[Weight, list[Tensor]]:
    """A linear layer, or a head, as kernels read it, and the tensors that must outlive that."""
    bias = None if layer.bias is None else layer.bias.detach().float().contiguous()
    pointer = None if bias is None else bias.data_ptr()
    if isinstance(layer, QuantisedLinear):
        q = layer.quantised
        offsets = None if q.offsets is None else q.offsets.data_ptr()
        sizes = {"kind": q.kind, "out": q.shape[0], "width": q.shape[1]}
        made = Weight(data=q.q.data_ptr(), scales=q.scales.data_ptr(), offsets=offsets, bias=pointer, **sizes)
        return made, [q.q, q.scales, *([] if q.offsets is None else [q.offsets]), *([] if bias is None else [bias])]
    weight = layer.weight.detach()
    if type(layer.weight) not in (Tensor, nn.Parameter) or weight.dtype not in KINDS or not weight.is_contiguous():
        raise CannotLower("weights the kernels cannot read")
    made = Weight(
        kind=KINDS[weight.dtype], out=weight.shape[0], width=weight.shape[1], data=weight.data_ptr(), bias=pointer
    )
    return made, [weight, *([] if bias is None else [bias])]


def lowering(part: Any, *mirrored: str) -> Any:
    """`part.lower`, if it is written for the very methods that run: a subclass with another `forward` has none."""
    for cls in type(part).__mro__:
        if "lower" in vars(cls):
            return functools.partial(_lower, part)
        if any(name in vars(cls) for name in mirrored or ("forward",)):
            break
    raise CannotLower(f"{part.kind} '{vars(part)['part'].name}'" if "part" in vars(part) else type(part).__name__)


def _lower(part: Any, *told: Any, **more: Any) -> Any:
    """`part.lower`; what it adds to a program is told to be its own."""
    if not told or not isinstance(told[0], Program):
        return part.lower(*told, **more)
    program = told[0]
    before, program.part = program.part, part
    try:
        return part.lower(*told, **more)
    finally:
        program.part = before
