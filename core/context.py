"""What one forward pass carries besides the activations: ids, positions, documents, and what layers share."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

Made = TypeVar("Made")


@dataclass(eq=False)  # not frozen: torch.compile would hash it by its fields, and not as itself
class Span:
    """A run of tokens: where each stands and which document it belongs to.

    `positions` (1 or B, T) int64 count within the document. `documents` (B, T) int64 number the documents of a row in
    order, None when every row is one document; then positions are `start, start + 1, …` and `start` is known.
    `room`, in cached calls, is how long the document of each token can become in its cache: an int, or (B, T).
    """

    positions: Tensor
    documents: Tensor | None = None
    start: int | None = None
    room: int | Tensor | None = None
    length_asked: bool = field(default=False, init=False)  # whether what was made of these tokens depends on room
    _once: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    @property
    def length(self) -> int:
        return self.positions.shape[-1]

    @property
    def text_lengths(self) -> int | Tensor:
        """How long the document of each token is, an int or (1 or B, T); in cached calls, how long it can become.

        Every call of a text is told the same, as long as its cache was made for the text.
        """
        self.length_asked = True
        if self.room is not None:
            return self.room
        if self.start is not None:
            return self.start + self.length
        index = torch.arange(self.length, device=self.positions.device).expand_as(self.positions)
        # A document goes on where the next token is one position further; its last token tells its length.
        ends = torch.ones_like(self.positions, dtype=torch.bool)
        ends[:, :-1] = self.positions[:, 1:] != self.positions[:, :-1] + 1
        last = torch.where(ends, index, self.length).flip(-1).cummin(-1).values.flip(-1)
        return self.positions.gather(-1, last) + 1

    def once_with(self, other: Span, key: Hashable, make: Callable[[], Made]) -> Made:
        """`make()`, worked out the first time `key` is asked for of this span and `other`."""
        # A span that held itself would outlive its pass, until the garbage collector came by.
        whom = None if other is self else other
        known: list[tuple[Span | None, Made]] = self._once.setdefault(key, [])
        for asked_with, made in known:  # by identity: a compiled layer cannot hash a span
            if asked_with is whom:
                return made
        made = make()
        known.append((whom, made))
        return made

    def known(self) -> dict[Any, Any]:
        """What `once_with` has worked out so far."""
        return {key: list(made) for key, made in self._once.items()}

    @contextmanager
    def knowing(self, known: dict[Any, Any]) -> Iterator[None]:
        """Within, `once_with` has worked out what `known()` gave before, and what it works out is forgotten after."""
        now, self._once = self._once, {key: list(made) for key, made in known.items()}
        try:
            yield
        finally:
            self._once = now

    @staticmethod
    def run(start: int, length: int, device: torch.device) -> Span:
        """One document's tokens `start … start + length - 1`."""
        return Span(torch.arange(start, start + length, device=device).unsqueeze(0), None, start)


def place_documents(
    ids: Tensor,
    last_id: Tensor | None = None,
    last_document: Tensor | None = None,
    last_position: Tensor | None = None,
) -> Span:
    """Number documents in order and restart positions in each.

    `ids` (B, T) name each token's document; a new document begins wherever the id changes, so an id that comes back
    later is another document. The `last_…` (B, 1) tell of the token before these, when there is one.
    """
    length = ids.shape[1]
    first = ids[:, :1] if last_id is None else last_id
    begins = ids != torch.cat([first, ids[:, :-1]], 1)  # (B, T)
    index = torch.arange(length, device=ids.device).expand_as(ids)
    since = torch.where(begins, index, -1).cummax(1).values  # index of the last beginning, -1 before the first
    carried = index if last_position is None else index + last_position + 1
    positions = torch.where(since >= 0, index - since, carried)
    documents = begins.cumsum(1) if last_document is None else begins.cumsum(1) + last_document
    return Span(positions, documents)


@dataclass(eq=False)
class Context:
    """Carried through one forward pass."""

    token_ids: Tensor  # (B, T) int64
    queries: Span  # the tokens of this call
    store: dict[str, Any] = field(default_factory=dict)  # what a layer leaves for later layers
    losses: dict[str, Tensor] = field(default_factory=dict)  # scalars added to the training loss
    again: bool = False  # a layer is run a second time, for the backward pass: what parts count was counted before
    _once: dict[Any, Any] = field(default_factory=dict)

    def once(self, key: Any, make: Callable[[], Made]) -> Made:
        """`make()`, worked out the first time `key` is asked for in this pass."""
        if key not in self._once:
            self._once[key] = make()
        made: Made = self._once[key]
        return made

    def rerun(self) -> Callable[[], AbstractContextManager[Context]]:
        """Makes contexts in which the layer that comes next can be run again and does as it did the first time: it
        finds what was there before it ran, and what it leaves is seen by no other."""
        token_ids, queries = self.token_ids, self.queries
        store, once, known = dict(self.store), dict(self._once), queries.known()

        @contextmanager
        def again() -> Iterator[Context]:
            with queries.knowing(known):
                yield Context(token_ids, queries, dict(store), again=True, _once=dict(once))

        return again

    def add_loss(self, name: str, value: Tensor) -> None:
        self.losses[name] = self.losses[name] + value if name in self.losses else value
