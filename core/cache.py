"""The decode cache: what every layer keeps of the tokens it has seen.

State is an argument of the forward pass. A layer writes what it keeps of the new tokens at the cache's present end and
reads what is visible; the decoder alone moves the end forward, so running a layer twice does no harm. Two forms of
memory cover the known mixers: *streams* hold one entry a token (keys and values, latents), all of them or the last
`window`; *registers* hold a fixed amount (recurrent states, convolution tails).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from lamina.core.context import Span, place_documents
from lamina.core.errors import GenerationError


class LayerState:
    """One layer's share of the cache.

    `streams` name -> shape of one token's entry, `(K, Dh)` or `(R,)`; stored as (B, K, L, Dh) or (B, L, R).
    `registers` name -> shape of a fixed-size tensor, stored as (B, *shape), zero at first.
    `window` entries are kept of each stream when it is given, in a ring.
    """

    def __init__(
        self,
        batch: int,
        length: int,
        dtype: torch.dtype,
        device: torch.device,
        *,
        streams: Mapping[str, Sequence[int]] | None = None,
        registers: Mapping[str, Sequence[int]] | None = None,
        register_dtype: torch.dtype | None = None,
        window: int | None = None,
    ) -> None:
        self.window, self.dtype = window, dtype
        self.capacity = length if window is None else min(length, window)
        self.streams = {
            name: torch.empty(batch, *shape[:-1], self.capacity, shape[-1], dtype=dtype, device=device)
            for name, shape in (streams or {}).items()
        }
        self.registers = {
            name: torch.zeros(batch, *shape, dtype=register_dtype or dtype, device=device)
            for name, shape in (registers or {}).items()
        }
        self._pending: dict[str, Tensor] = {}
        self.owner: Cache = cast("Cache", None)  # set by the cache that holds this state

    @property
    def used(self) -> int:
        """Tokens seen before this call."""
        return self.owner.used

    def append(self, **entries: Tensor) -> tuple[Tensor, ...]:
        """Keep the new tokens' entries; returns, in the order given, every visible entry of each stream, new ones too.

        Entries (B, K, T, Dh) -> (B, K, S, Dh), or (B, T, R) -> (B, S, R). `keys()` says where the S entries stand.
        """
        new = next(iter(entries.values())).shape[-2]
        return tuple(self._append(name, entry, new) for name, entry in entries.items())

    def _append(self, name: str, entry: Tensor, new: int) -> Tensor:
        stream, used, capacity = self.streams[name], self.used, self.capacity
        self._pending.pop(name, None)  # of a call that failed
        if used + new <= capacity:
            stream.narrow(-2, used, new).copy_(entry)
            return stream.narrow(-2, 0, used + new)
        if self.window is None or capacity < self.window:
            raise GenerationError(
                f"the cache has room for {capacity} tokens and {used + new} were asked for",
                hint="make a longer cache, or call cache.grow(length)",
            )
        if new == 1:  # overwrites the one entry that has just left the window
            stream.narrow(-2, used % capacity, 1).copy_(entry)
            return stream
        kept = torch.arange(max(0, used - capacity), used, device=stream.device) % capacity
        visible = torch.cat([stream.index_select(-2, kept), entry.to(stream.dtype)], -2)
        slots = torch.arange(used + new - capacity, used + new, device=stream.device) % capacity
        last = visible.narrow(-2, visible.shape[-2] - capacity, capacity)
        self._pending[name] = torch.empty_like(stream).index_copy_(-2, slots, last)
        return visible

    def keys(self, new: int) -> Span:
        """Where the entries that `append` returns for `new` tokens stand."""
        placed = self.owner.placed_keys.get(self.capacity)
        return self._keys(new) if placed is None else placed

    def _keys(self, new: int) -> Span:
        used, capacity = self.used, self.capacity
        if used + new <= capacity:
            return self.owner.span(0, used + new)
        if new == 1:  # the ring as it lies: slot s holds the last token whose index is s modulo the capacity
            slots = torch.arange(capacity, device=self.owner.device)
            return self.owner.span_at(used - (used - slots) % capacity)
        first = max(0, used - capacity)
        return self.owner.span(first, used + new - first)

    def read(self, name: str) -> Tensor:
        """A register's content before this call's tokens, (B, *shape); zero at first."""
        return self.registers[name]

    def write(self, name: str, value: Tensor) -> None:
        """A register's content after this call's tokens; takes effect when the decoder advances the cache."""
        self._pending[name] = value.to(self.registers[name].dtype)

    def commit(self) -> None:
        """Make what was pending the content. Called by the cache as it advances."""
        for name, value in self._pending.items():
            (self.streams if name in self.streams else self.registers)[name] = value
        self._pending.clear()

    def can_crop(self, n_tokens: int) -> bool:
        if n_tokens in (0, self.used):
            return True
        return not self.registers and (not self.streams or self.used <= self.capacity)

    def can_take_back(self, n_tokens: int) -> bool:
        """Whether the next `n_tokens` tokens could be cropped away again, any number of them."""
        return n_tokens == 0 or (not self.registers and (not self.streams or self.used + n_tokens <= self.capacity))

    def put(self, row: int, other: LayerState, shift: int) -> None:
        """Have `row` keep what the one row of `other` keeps, its token t standing at t + `shift`."""
        for name, stream in self.streams.items():
            seen = other.used
            kept = torch.arange(max(0, seen - min(self.capacity, other.capacity)), seen, device=stream.device)
            entries = other.streams[name][0].index_select(-2, kept % other.capacity)
            stream[row].zero_()  # what nothing sees must be numbers all the same
            stream[row].index_copy_(-2, (kept + shift) % self.capacity, entries)
        for name, register in self.registers.items():
            register[row] = other.registers[name][0]

    def tensors(self) -> list[Tensor]:
        return [*self.streams.values(), *self.registers.values()]

    def map(self, change: Callable[[Tensor], Tensor]) -> None:
        """Replace every tensor by `change(tensor)`."""
        self.streams = {name: change(tensor) for name, tensor in self.streams.items()}
        self.registers = {name: change(tensor) for name, tensor in self.registers.items()}

    def reset(self) -> None:
        self.registers = {name: torch.zeros_like(tensor) for name, tensor in self.registers.items()}

    def grow(self, length: int) -> None:
        capacity = length if self.window is None else min(length, self.window)
        if capacity <= self.capacity:
            return
        for name, stream in self.streams.items():
            shape = list(stream.shape)
            shape[-2] = capacity
            self.streams[name] = torch.empty(shape, dtype=stream.dtype, device=stream.device)
            self.streams[name].narrow(-2, 0, self.capacity).copy_(stream)
        self.capacity = capacity


class Cache:
    """What a decoder keeps of `batch` sequences of up to `length` tokens. Made by `decoder.make_cache`."""

    def __init__(self, layers: Sequence[LayerState | None], batch: int, length: int, device: torch.device) -> None:
        self.layers = list(layers)
        self.batch, self.length, self.device = batch, length, device
        self.used = 0
        self.room = length  # tokens it was made for, while it was empty: what depends on a text's length is told this
        # By capacity, while a call runs: what the layers' `keys` give. Made before the layers run, because a compiled
        # layer must not leave tensors to later ones.
        self.placed_keys: dict[int, Span] = {}
        # Per token, only once documents are given: ids as given, documents numbered in order, positions within each.
        self._ids: Tensor | None = None
        self._documents: Tensor | None = None
        self._positions: Tensor | None = None
        for state in self.layers:
            if state is not None:
                state.owner = self

    def place(self, batch: int, new: int, document_ids: Tensor | None) -> Span:
        """Where the next `new` tokens stand. Without document ids they go on with the last document of their row."""
        self.placed_keys.clear()
        queries = self._place(batch, new, document_ids)
        for state in self.layers:
            if state is not None and state.streams and state.capacity not in self.placed_keys:
                self.placed_keys[state.capacity] = state.keys(new)
        return queries

    def _place(self, batch: int, new: int, document_ids: Tensor | None) -> Span:
        if batch != self.batch:
            raise ValueError(f"the cache was made for a batch of {self.batch}, not {batch}")
        if self.used + new > self.length:
            raise GenerationError(
                f"the cache has room for {self.length} tokens and {self.used + new} were asked for",
                hint="make a longer cache, or call cache.grow(length)",
            )
        if self.used == 0:  # a call that failed may have left something
            self._ids = self._documents = self._positions = None
            self.room = self.length
        if document_ids is None and self._ids is None:
            return replace(Span.run(self.used, new, self.device), room=self.room)
        ids, documents, positions = self._document_tensors()
        end = slice(self.used, self.used + new)
        ids[:, end] = document_ids if document_ids is not None else ids[:, self.used - 1 : self.used]
        if self.used == 0:
            span = place_documents(ids[:, end])
        else:
            last = slice(self.used - 1, self.used)
            span = place_documents(ids[:, end], ids[:, last], documents[:, last], positions[:, last])
        assert span.documents is not None
        documents[:, end], positions[:, end] = span.documents, span.positions
        begins = torch.arange(self.used, self.used + new, device=self.device) - span.positions  # (B, T)
        return replace(span, room=self.room - begins)

    def _document_tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        if self._ids is None or self._documents is None or self._positions is None:
            empty = torch.zeros(self.batch, self.length, dtype=torch.int64, device=self.device)
            self._ids, self._documents = empty - 1, empty
            self._positions = torch.arange(self.length, device=self.device).repeat(self.batch, 1)
        return self._ids, self._documents, self._positions

    def span(self, first: int, length: int) -> Span:
        """Tokens `first … first + length - 1`."""
        if self._positions is None or self._documents is None:
            return Span.run(first, length, self.device)
        end = slice(first, first + length)
        return Span(self._positions[:, end], self._documents[:, end])

    def span_at(self, indices: Tensor) -> Span:
        """Tokens at `indices` (S,)."""
        if self._positions is None or self._documents is None:
            return Span(indices.unsqueeze(0))
        return Span(self._positions[:, indices], self._documents[:, indices])

    def advance(self, new: int) -> None:
        """The last call's `new` tokens become part of the past. Called by the decoder."""
        for state in self.layers:
            if state is not None:
                state.commit()
        self.placed_keys.clear()
        self.used += new

    def can_crop(self, n_tokens: int) -> bool:
        return all(state is None or state.can_crop(n_tokens) for state in self.layers)

    def can_take_back(self, n_tokens: int) -> bool:
        """Whether the next `n_tokens` tokens could be cropped away again, any number of them."""
        return all(state is None or state.can_take_back(n_tokens) for state in self.layers)

    def crop(self, n_tokens: int) -> None:
        """Forget all but the first `n_tokens` tokens. Recurrent states and rings that have wrapped cannot go back."""
        if not 0 <= n_tokens <= self.used:
            raise ValueError(f"cannot crop a cache of {self.used} tokens to {n_tokens}")
        if not self.can_crop(n_tokens):
            raise GenerationError(
                "this decoder's cache keeps a recurrent state or a full rolling window and cannot go back",
                hint="take cache.clone() before the tokens that may have to be undone",
            )
        if n_tokens == 0:
            self.reset()
        self.used = n_tokens

    def reset(self) -> None:
        """Forget everything."""
        for state in self.layers:
            if state is not None:
                state.reset()
        self._ids = self._documents = self._positions = None
        self.used = 0

    def reorder(self, rows: Tensor) -> None:
        """Keep these rows (B',) int64, in this order; a row may be taken several times."""
        for state in self.layers:
            if state is not None:
                state.map(lambda tensor: tensor.index_select(0, rows))
        if self._ids is not None and self._documents is not None and self._positions is not None:
            self._ids, self._documents = self._ids.index_select(0, rows), self._documents.index_select(0, rows)
            self._positions = self._positions.index_select(0, rows)
        self.batch = rows.shape[0]

    def stand_at(self, used: int) -> None:
        """Be as if `used` tokens had been seen, for rows that will be `put` there."""
        self.reset()
        self.used = used

    def put(self, row: int, other: Cache) -> None:
        """Have `row` hold the one text of `other`, ending where this cache stands; before it is no text."""
        shift = self.used - other.used
        if shift < 0:
            raise ValueError(f"a text of {other.used} tokens cannot end at token {self.used}")
        for state, theirs in zip(self.layers, other.layers, strict=True):
            if state is not None and theirs is not None:
                state.put(row, theirs, shift)
        ids, documents, positions = self._document_tensors()
        ids[row, :shift], documents[row, :shift] = -1, 0
        ids[row, shift : self.used], documents[row, shift : self.used] = 0, 1
        positions[row, : self.used] = (torch.arange(self.used, device=self.device) - shift).clamp(min=0)

    def grow(self, length: int) -> None:
        """Make room for `length` tokens, keeping what is there."""
        if length <= self.length:
            return
        for state in self.layers:
            if state is not None:
                state.grow(length)
        if self._ids is not None and self._documents is not None and self._positions is not None:
            old, self._ids = (self._ids, self._documents, self._positions), None
            self.length = length
            for grown, past in zip(self._document_tensors(), old, strict=True):
                grown[:, : past.shape[1]] = past
        self.length = length

    def clone(self) -> Cache:
        """An independent copy."""
        twin = copy.copy(self)
        twin.placed_keys = {}
        twin.layers = []
        for state in self.layers:
            copied = copy.copy(state)
            if copied is not None:
                copied.map(torch.clone)
                copied._pending = {}
                copied.owner = twin
            twin.layers.append(copied)
        for name in ("_ids", "_documents", "_positions"):
            tensor = getattr(self, name)
            setattr(twin, name, None if tensor is None else tensor.clone())
        return twin

    @property
    def nbytes(self) -> int:
        """Bytes held for all layers."""
        return sum(tensor.nbytes for state in self.layers if state is not None for tensor in state.tensors())
