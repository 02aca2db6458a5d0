"""Numbering documents, and work done once a pass."""

from __future__ import annotations

import gc
import weakref
from itertools import pairwise

import torch
from hypothesis import given
from hypothesis import strategies as st

from lamina.core import Context, Span
from lamina.core.context import place_documents


def by_hand(ids: list[int]) -> tuple[list[int], list[int]]:
    """Document numbers and positions, token by token."""
    documents, positions = [0], [0]
    for before, now in pairwise(ids):
        documents.append(documents[-1] + (now != before))
        positions.append(0 if now != before else positions[-1] + 1)
    return documents, positions


@given(ids=st.lists(st.integers(0, 2), min_size=1, max_size=12), data=st.data())
def test_documents_are_numbered_in_order_however_the_text_is_cut(ids: list[int], data: st.DataObject) -> None:
    documents, positions = by_hand(ids)
    cut = data.draw(st.integers(0, len(ids) - 1))
    row, span = torch.tensor([ids]), place_documents(torch.tensor([ids[: cut or None]]))
    parts = [span]
    if cut:
        last = (tensor[:, -1:] for tensor in (row[:, :cut], span.documents, span.positions) if tensor is not None)
        parts.append(place_documents(row[:, cut:], *last))
    assert torch.cat([part.documents for part in parts if part.documents is not None], 1).tolist() == [documents]
    assert torch.cat([part.positions for part in parts], 1).tolist() == [positions]


def test_rows_are_numbered_apart() -> None:
    span = place_documents(torch.tensor([[5, 5, 6], [1, 2, 2]]))
    assert span.documents is not None
    assert span.documents.tolist() == [[0, 0, 1], [0, 1, 1]]
    assert span.positions.tolist() == [[0, 1, 0], [0, 0, 1]]


@given(ids=st.lists(st.integers(0, 2), min_size=1, max_size=12))
def test_every_token_is_told_how_long_its_document_is(ids: list[int]) -> None:
    documents, _ = by_hand(ids)
    lengths = place_documents(torch.tensor([ids])).text_lengths
    assert isinstance(lengths, torch.Tensor)
    assert lengths.tolist() == [[documents.count(document) for document in documents]]
    assert Span.run(3, 4, torch.device("cpu")).text_lengths == 7


def context() -> Context:
    return Context(torch.zeros(1, 3, dtype=torch.int64), Span.run(0, 3, torch.device("cpu")))


def test_once_makes_each_key_once_a_pass() -> None:
    made: list[int] = []
    one = context()
    for key in ("a", "b", "a"):
        one.once(key, lambda: made.append(1))
    assert len(made) == 2
    context().once("a", lambda: made.append(1))
    assert len(made) == 3


def test_losses_of_one_name_add_up() -> None:
    one = context()
    one.add_loss("balance", torch.tensor(1.0))
    one.add_loss("balance", torch.tensor(2.0))
    one.add_loss("z", torch.tensor(5.0))
    assert {name: float(loss) for name, loss in one.losses.items()} == {"balance": 3.0, "z": 5.0}


def test_what_a_span_keeps_dies_with_its_pass() -> None:
    span = Span.run(0, 3, torch.device("cpu"))
    kept = weakref.ref(span.once_with(span, "x", lambda: torch.zeros(3)))
    gc.disable()
    try:
        del span
        assert kept() is None
    finally:
        gc.enable()
