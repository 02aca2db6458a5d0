"""Runs the layers of a decoder on a few tokens of a cache as programs, where their parts can say what they do.

Layers that can are run together in one call of the kernels; between them the others run as they are. The result is
that of the plain layers within the precision's own error; what a stepper does not take, plain layers do.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lamina.core.block import through
from lamina.core.cache import Cache, LayerState
from lamina.core.context import Context
from lamina.core.mask import Mask
from lamina.core.native import KINDS, Library, Op, Run, State, Weight, library
from lamina.core.native import Mask as MaskStruct
from lamina.core.product import project
from lamina.core.program import CannotLower, Program, lowering, weight_of
from lamina.core.quantised import QuantisedLinear, can_quantise, linears, quantise
from lamina.core.softmax_attention import all_visible, visible

if TYPE_CHECKING:
    from lamina.core.decoder import Decoder, Head

MOST_ROWS = 32  # more are work for a matrix product
LEAST_ROOM = 2048


class Stepper:
    """Of one decoder, whose weights stay where they are."""

    def __init__(self, decoder: Decoder, kernels: Library) -> None:
        self.decoder, self.kernels = decoder, kernels
        self.room = 0
        self.runs: list[_Compiled | int] = []  # programs, and layers that run as they are
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
        self.room, self.runs, self.why = room, [], {}
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
            self.runs.append(_Compiled(program, self.kernels))

    def __call__(self, context: Context, cache: Cache) -> Tensor | None:
        """What the head reads, (B, T, D); None when the plain layers have to do it. Does not advance the cache."""
        decoder, (batch, tokens) = self.decoder, context.token_ids.shape
        if decoder.training or torch.is_grad_enabled() or not 0 < batch * tokens <= MOST_ROWS:
            return None
        if self._address() != self._weights or not any(isinstance(run, _Compiled) for run in self.runs):
            return None
        if cache.length > self.room:
            self._lower(min(max(2 * self.room, cache.length), max(decoder.context_length, cache.length)))
        if any(isinstance(run, _Compiled) and not run.takes(cache, tokens) for run in self.runs):
            return None
        stream = decoder.embedding(context.token_ids, context)
        positions = context.queries.positions.expand(batch, -1).contiguous()
        for run in self.runs:
            if isinstance(run, _Compiled):
                stream = stream.float().contiguous()
                run(stream, positions, context, cache)
            else:
                ffn_state = cache.layers[len(decoder.layers) + run] if len(cache.layers) > len(decoder.layers) else None
                stream = decoder.layers[run](stream.to(decoder.dtype), context, cache.layers[run], ffn_state)
        return through(decoder.norm, stream.to(decoder.dtype))


class _Compiled:
    """A program as the kernels hold it."""

    def __init__(self, program: Program, kernels: Library) -> None:
        self.layers, self.masks, self.dtype = program.layers, program.masks, program.dtype
        self._kept, self._kernels = program.kept, kernels
        ops = (Op * len(program.ops))(*program.ops)
        weights = (Weight * len(program.weights))(*program.weights)
        widths = (ctypes.c_int64 * len(program.widths))(*program.widths)
        times = (ctypes.c_int64 * len(program.times))(*program.times)
        self._handle = kernels.program(ops, len(ops), weights, len(weights), widths, times, len(widths), MOST_ROWS)
        self.n_ops = len(ops)
        self.codes = [(op.code, weights[op.weight].width) for op in ops]
        self._states = (State * max(1, len(self.layers)))()
        self._masks = (MaskStruct * max(1, len(self.masks)))()
        self._run = Run(states=self._states, masks=self._masks)
        self._bound: list[tuple[Tensor, Tensor] | None] = [None] * len(self.layers)

    def __del__(self) -> None:
        self._kernels.free(self._handle)

    def takes(self, cache: Cache, tokens: int) -> bool:
        """Whether each layer keeps what the kernels read, and the new tokens fit without moving others."""
        for layer in self.layers:
            state = cache.layers[layer]
            if state is None or state.dtype != self.dtype:
                return False
            if cache.used + tokens > state.capacity and (tokens > 1 or state.window is None):
                return False
        return True

    def __call__(self, stream: Tensor, positions: Tensor, context: Context, cache: Cache) -> None:
        """Changes `stream` (B, T, D) float32 in place, and keeps what the cache keeps of it."""
        run = self._run
        run.batch, run.tokens, _ = stream.shape
        run.used = cache.used
        run.positions, run.stream = positions.data_ptr(), stream.data_ptr()
        held = []
        for index, layer in enumerate(self.layers):
            state = cache.layers[layer]
            assert state is not None
            self._bind(index, state)
            allowed = self._allowed(self.masks[index], context, cache, state, run.tokens)
            held.append(allowed)
            mask = self._masks[index]
            mask.allowed = None if allowed is None else allowed.data_ptr()
            mask.per_row = 0 if allowed is None or allowed.shape[0] == 1 else allowed.stride(0)
        self._kernels.run(self._handle, ctypes.addressof(run), torch.get_num_threads())

    def _bind(self, index: int, state: LayerState) -> None:
        k, v, bound = state.streams["k"], state.streams["v"], self._bound[index]
        if bound is None or bound[0] is not k or bound[1] is not v:
            self._bound[index] = k, v
            told = self._states[index]
            told.k, told.v, told.capacity = k.data_ptr(), v.data_ptr(), state.capacity

    def _allowed(self, mask: Mask, context: Context, cache: Cache, state: LayerState, tokens: int) -> Tensor | None:
        """Which keys each token sees, (1 or B, T, S) bool; None when that is all up to itself."""
        keys = cache.placed_keys[state.capacity]
        if all_visible(mask, context.queries, keys) if tokens == 1 else plainly_earlier(mask, context, keys):
            return None
        return visible(mask, context.queries, keys).contiguous()


def plainly_earlier(mask: Mask, context: Context, keys: Any) -> bool:
    """Whether each token sees all keys up to itself."""
    queries = context.queries
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

    The embedding is read a row at a time and stays as it is, and so do routers, whose choices hang on small differences.
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
