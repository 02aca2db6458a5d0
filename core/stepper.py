"""Runs the layers of a decoder on a few tokens of a cache as programs, where their parts can say what they do.

Layers that can are run together in one call of the kernels; between them the others run as they are. The result is
that of the plain layers within the precision's own error; what a stepper does not take, plain layers do.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lamina.core.block import through
from lamina.core.cache import Cache, LayerState
from lamina.core.context import Context, Span
from lamina.core.mask import Mask
from lamina.core.native import KINDS, Library, Op, Run, State, Weight, library
from lamina.core.native import Mask as MaskStruct
from lamina.core.product import is_slow, project
from lamina.core.program import LINEAR, CannotLower, Program, lowering, weight_of
from lamina.core.quantised import QuantisedLinear, can_quantise, linears, quantise
from lamina.core.softmax_attention import all_visible, visible

if TYPE_CHECKING:
    from lamina.core.decoder import Decoder, Head

MOST_ROWS = 32  # more are work for a matrix product
MANY_ROWS = 512  # of those, so many at once
PADDING = 16  # floats behind a buffer's rows that kernels may read
CPU = torch.device("cpu")
LEAST_ROOM = 2048


class Stepper:
    """Of one decoder, whose weights stay where they are."""

    def __init__(self, decoder: Decoder, kernels: Library) -> None:
        self.decoder, self.kernels = decoder, kernels
        self.room = 0
        self.runs: list[_Compiled | int] = []  # programs, and layers that run as they are
        self.programs: list[_Compiled] = []
        self.why: dict[int, str] = {}  # of the latter
        self._weights = self._address()
        self._lower(min(LEAST_ROOM, decoder.context_length))

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        return None  # a copy has other weights

    def _address(self) -> int:
        """Changes when a decoder's weights are moved or cast."""
        return self.decoder.embedding.tokens.weight.data_ptr()

    def _lower(self, room: int) -> None:
        decoder = self.decoder
        self.room, self.runs, self.programs, self.why = room, [], [], {}
        if decoder.reshapes_stream:
            self.why = dict.fromkeys(range(len(decoder.layers)), "its stream is not (B, T, D)")
            return
        program: Program | None = None
        for index, block in enumerate(decoder.layers):
            try:
                trial = program.branch() if program is not None else Program(decoder.dim, decoder.dtype, room)
                lowering(block)(trial, index)
                trial.free()
                program = trial
            except CannotLower as error:
                self.why[index] = str(error)
                self._close(program)
                self.runs.append(index)
                program = None
        self._close(program)

    def _close(self, program: Program | None) -> None:
        if program is not None and program.ops:
            self.programs.append(_Compiled(program, self.kernels))
            self.runs.append(self.programs[-1])

    def __call__(self, context: Context, cache: Cache) -> Tensor | None:
        """What the head reads, (B, T, D); None when the plain layers have to do it. Does not advance the cache."""
        decoder, tokens = self.decoder, context.token_ids.shape[1]
        if decoder.training or torch.is_grad_enabled() or not context.token_ids.numel():
            return None
        if self._address() != self._weights or not self.programs:
            return None
        if cache.length > self.room:
            self._lower(min(max(2 * self.room, cache.length), max(decoder.context_length, cache.length)))
        if any(not program.takes(cache, tokens) for program in self.programs):
            return None
        stream = decoder.embedding(context.token_ids, context)
        for run in self.runs:
            if isinstance(run, _Compiled):
                stream = stream.float().contiguous()
                run(stream, context, cache)
            else:
                ffn_state = cache.layers[len(decoder.layers) + run] if len(cache.layers) > len(decoder.layers) else None
                stream = decoder.layers[run](stream.to(decoder.dtype), context, cache.layers[run], ffn_state)
        return through(decoder.norm, stream.to(decoder.dtype))

    @contextmanager
    def timing(self) -> Iterator[None]:
        """Programs keep the time of their operations within, for `take_seconds`."""
        for program in self.programs:
            program.time(True)
        try:
            yield
        finally:
            for program in self.programs:
                program.time(False)

    def take_seconds(self) -> Iterator[tuple[Any, float]]:
        """Parts and the seconds their operations took since they were last asked for; a part may come several times."""
        for program in self.programs:
            yield from program.take_seconds()


class _Compiled:
    """A program as the kernels hold it, with its buffers."""

    def __init__(self, program: Program, kernels: Library) -> None:
        self.layers, self.masks, self.dtype = program.layers, program.masks, program.dtype
        self._ops, self._kept, self._kernels = program.ops, program.kept, kernels
        self._products, self._widths, self._times = program.products, program.widths, program.times
        ops, weights = (Op * len(program.ops))(*program.ops), (Weight * len(program.weights))(*program.weights)
        widths = (ctypes.c_int64 * len(program.widths))(*program.widths)
        times = (ctypes.c_int64 * len(program.times))(*program.times)
        self._handle = kernels.program(ops, len(ops), weights, len(weights), widths, times, len(widths))
        self._states = (State * max(1, len(self.layers)))()
        self._masks = (MaskStruct * max(1, len(self.masks)))()
        self._pointers = (ctypes.c_void_p * len(widths))()
        self._run = Run(states=self._states, masks=self._masks, buffers=self._pointers)
        self._bound: list[tuple[Tensor, Tensor] | None] = [None] * len(self.layers)
        self._buffers: list[Tensor] = []
        self._room = 0  # rows of the buffers
        self._scratch: dict[torch.dtype, Tensor] = {}  # for weights widened
        self._parts, self._seconds = program.parts, (ctypes.c_double * len(ops))()
        self._timed = False
        # Layers whose tokens see the same keys are told of them once.
        self._alike: dict[Any, list[int]] = {}
        for index, mask in enumerate(self.masks):
            self._alike.setdefault(mask.pattern, []).append(index)

    def __del__(self) -> None:
        self._kernels.free(self._handle)

    def time(self, on: bool) -> None:
        self._timed = on
        self._kernels.time(self._handle, self._seconds if on else None)

    def take_seconds(self) -> Iterator[tuple[Any, float]]:
        yield from zip(self._parts, self._seconds, strict=True)
        ctypes.memset(self._seconds, 0, ctypes.sizeof(self._seconds))

    def takes(self, cache: Cache, tokens: int) -> bool:
        """Whether each layer keeps what the kernels read, and the new tokens fit without moving others."""
        for layer in self.layers:
            state = cache.layers[layer]
            if state is None or state.dtype != self.dtype:
                return False
            if cache.used + tokens > state.capacity and (tokens > 1 or state.window is None):
                return False
        return True

    def __call__(self, stream: Tensor, context: Context, cache: Cache) -> None:
        """Changes `stream` (B, T, D) float32 in place, and keeps what the cache keeps of it."""
        batch, tokens, width = stream.shape
        for index, layer in enumerate(self.layers):
            self._bind(index, cache.layers[layer])
        positions = context.queries.positions.expand(batch, -1)
        if batch * tokens <= MOST_ROWS:
            self._place(stream, positions.contiguous(), cache.used)
            self._show(context, cache, cache.used + tokens)
            self._run.many = 0
            self._do(0, len(self._ops))
            return
        self._run.many = 1
        # Many rows are work for matrix products: a few hundred at a time, so that what is between stays near.
        step = max(1, MANY_ROWS // batch)
        for at in range(0, tokens, step):
            part = stream[:, at : at + step].contiguous()
            end = at + part.shape[1]
            self._place(part, positions[:, at:end].contiguous(), cache.used + at)
            self._show(_part(context, at, end), cache, cache.used + end)
            self._widely(part.view(-1, width))
            stream[:, at:end] = part

    def _place(self, stream: Tensor, positions: Tensor, used: int) -> None:
        """Tell the kernels which rows there are."""
        run, rows = self._run, positions.numel()
        if rows > self._room:
            self._room = rows
            sizes = zip(self._widths[1:], self._times[1:], strict=True)
            self._buffers = [torch.empty(rows * times, size + PADDING) for size, times in sizes]
            for index, buffer in enumerate(self._buffers, 1):
                self._pointers[index] = buffer.data_ptr()
        run.batch, run.tokens = positions.shape
        run.used, run.positions = used, positions.data_ptr()
        self._pointers[0], self._positions = stream.data_ptr(), positions

    def _do(self, first: int, end: int) -> None:
        self._run.first, self._run.end = first, end
        self._kernels.run(self._handle, ctypes.addressof(self._run), torch.get_num_threads())

    def _show(self, context: Context, cache: Cache, end: int) -> None:
        """Tell the kernels which keys each token sees, where the last of them is the cache's `end`th."""
        self._visible: list[Tensor] = []  # alive while the kernels read it
        for layers in self._alike.values():
            for capacity, indices in _by(layers, lambda index: self._states[index].capacity):
                # Where an old entry of a ring gives way, the keys stand as the cache has placed them.
                keys = cache.span(0, end) if end <= capacity else cache.placed_keys[capacity]
                mask, allowed = self.masks[indices[0]], None
                if not _all_earlier(mask, context.queries, keys):
                    allowed = visible(mask, context.queries, keys).contiguous()
                    self._visible.append(allowed)
                for index in indices:
                    told = self._masks[index]
                    told.allowed = None if allowed is None else allowed.data_ptr()
                    told.per_row = 0 if allowed is None or allowed.shape[0] == 1 else allowed.stride(0)

    def _widely(self, stream: Tensor) -> None:
        """The same for many rows (M, D): products by torch, what is between by the kernels."""
        done = 0
        for index, op in enumerate(self._ops):
            if op.code == LINEAR:
                if done < index:
                    self._do(done, index)
                start = time.perf_counter()
                self._multiply(op, self._products[index], stream)
                if self._timed:
                    self._seconds[index] += time.perf_counter() - start
                done = index + 1
        if done < len(self._ops):
            self._do(done, len(self._ops))

    def _rows(self, buffer: int, at: int, width: int, stream: Tensor) -> Tensor:
        if buffer == 0:
            return stream[:, at : at + width]
        flat, size = self._buffers[buffer - 1].flatten(), self._widths[buffer]
        return flat[: stream.shape[0] * size].view(-1, size)[:, at : at + width]

    def _multiply(self, op: Op, layer: Any, stream: Tensor) -> None:
        weight = self._weight(layer)
        x = self._rows(op.source, op.source_at, weight.shape[1], stream)
        y = self._rows(op.out, op.out_at, weight.shape[0], stream)
        if weight.dtype == torch.float32:
            torch.addmm(y, x, weight.t(), beta=op.a, alpha=op.b, out=y)
        else:
            found = F.linear(x.to(weight.dtype), weight)
            y.mul_(op.a).add_(found, alpha=op.b) if op.a else torch.mul(found, op.b, out=y)
        if layer.bias is not None:
            y.add_(layer.bias, alpha=op.b)

    def _weight(self, layer: Any) -> Tensor:
        """(out, in) in a dtype whose products are fast here."""
        quick = torch.float32 if self.dtype == torch.float32 or is_slow(self.dtype, CPU) else self.dtype
        if isinstance(layer, QuantisedLinear):
            return layer.quantised.widen(quick, self._room_for(quick, layer.out_features, layer.in_features))
        weight: Tensor = layer.weight.detach()
        return weight if weight.dtype == quick else self._room_for(quick, *weight.shape).copy_(weight)

    def _room_for(self, dtype: torch.dtype, out: int, width: int) -> Tensor:
        held = self._scratch.get(dtype)
        if held is None or held.numel() < out * width:
            held = self._scratch[dtype] = torch.empty(out * width, dtype=dtype)
        return held[: out * width].view(out, width)

    def _bind(self, index: int, state: LayerState | None) -> None:
        assert state is not None
        k, v, bound = state.streams["k"], state.streams["v"], self._bound[index]
        if bound is None or bound[0] is not k or bound[1] is not v:
            self._bound[index] = k, v
            told = self._states[index]
            told.k, told.v, told.capacity = k.data_ptr(), v.data_ptr(), state.capacity


def _part(context: Context, first: int, end: int) -> Context:
    """The context of some of a call's tokens."""
    queries = context.queries
    documents = None if queries.documents is None else queries.documents[:, first:end]
    start = None if queries.start is None else queries.start + first
    return Context(context.token_ids[:, first:end], Span(queries.positions[:, first:end], documents, start))


def _by(items: list[int], key: Callable[[int], int]) -> Iterator[tuple[int, list[int]]]:
    found: dict[int, list[int]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    yield from found.items()


def _all_earlier(mask: Mask, queries: Span, keys: Span) -> bool:
    """Whether each token sees all keys up to itself."""
    if queries.length == 1 and all_visible(mask, queries, keys):
        return True
    if not mask.causal or queries.start is None or keys.start != 0 or keys.documents is not None:
        return False
    return queries.start + queries.length <= mask.dense_up_to


class HeadProduct:
    """x · weightᵀ + bias of a head by the kernels, for a few rows; plainly for more."""

    def __init__(self, head: Head, kernels: Library) -> None:
        self._weight, self._kept = weight_of(head)
        self._head, self._kernels = head, kernels

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        return None

    def __call__(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., V)"""
        head, rows = self._head, x.numel() // x.shape[-1]
        moved = head.weight.data_ptr() != self._weight.data
        if moved or not 0 < rows <= MOST_ROWS or torch.is_grad_enabled() or x.dtype != head.weight.dtype:
            return project(x, head.weight, head.bias)
        out = torch.empty(rows, self._weight.out)
        self._kernels.linear(self._weight, x.float().reshape(rows, -1).contiguous(), out)
        return out.view(*x.shape[:-1], -1).to(x.dtype)


def use_kernels(decoder: Decoder) -> bool:
    """Have the kernels do what they can of a decoder; whether there are any for its device and dtype."""
    kernels = library()
    if kernels is None or decoder.device.type != "cpu" or decoder.dtype not in KINDS:
        return False
    decoder.stepper = Stepper(decoder, kernels)
    if decoder.head.product is None:
        decoder.head.product = HeadProduct(decoder.head, kernels)
    return True


@torch.no_grad()
def quantise_decoder(decoder: Decoder, bits: int, head_bits: int) -> None:
    """Round the weights of every linear layer whose input divides into groups, and of the head, then use the kernels.

    The embedding is read a row at a time and stays as it is, and so do routers, whose choices hang on little.
    """
    for parent, name, linear in list(linears(decoder)):
        if can_quantise(linear.weight):
            setattr(parent, name, QuantisedLinear(quantise(linear.weight, bits), linear.bias, decoder.dtype))
    head = decoder.head
    if can_quantise(head.weight):
        head.product = QuantisedLinear(quantise(head.weight, head_bits), head.bias, decoder.dtype)
        if head.weight is not decoder.embedding.tokens.weight:
            head.register_parameter("weight", None)
    use_kernels(decoder)
