"""The cache against plain lists: what a layer reads back is what the tokens before it wrote."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lamina.core import Cache, GenerationError, LayerState, Span

CPU = torch.device("cpu")
splits = st.lists(st.integers(1, 5), min_size=1, max_size=6)
windows = st.one_of(st.none(), st.integers(1, 6))


def make_cache(length: int, window: int | None = None, batch: int = 2, registers: bool = False) -> Cache:
    """One layer that keeps keys by head and a latent."""
    state = LayerState(
        batch,
        length,
        torch.float32,
        CPU,
        streams={"k": (2, 3), "latent": (4,)},
        registers={"tail": (5,)} if registers else None,
        window=window,
    )
    return Cache([state, None], batch, length, CPU)


def entries(batch: int, first: int, length: int) -> tuple[Tensor, Tensor]:
    """What tokens `first …` write: each entry tells its row and its token, so that any mix-up shows."""
    mark = torch.arange(first, first + length).float() + 1000 * torch.arange(batch).unsqueeze(1)  # (B, T)
    heads = torch.arange(2).view(1, 2, 1, 1) * 0.25
    return mark[:, None, :, None] + heads.expand(batch, 2, length, 3), mark.unsqueeze(-1).expand(-1, -1, 4).clone()


def feed(cache: Cache, length: int, document_ids: Tensor | None = None) -> tuple[Span, Span, Tensor, Tensor]:
    """One call of `length` tokens -> where they stand, where what they read stands, and what they read."""
    state = cache.layers[0]
    assert state is not None
    queries = cache.place(cache.batch, length, document_ids)
    k, latent = entries(cache.batch, cache.used, length)
    keys = state.keys(length)
    read = state.append(k=k, latent=latent)
    cache.advance(length)
    return queries, keys, *(tensor.clone() for tensor in read)


def check_read(cache: Cache, keys: Span, k: Tensor, latent: Tensor, window: int | None, new: int) -> None:
    """Each entry is the one its position names, and none that a new token may see is missing."""
    first_new = cache.used - new
    positions = keys.positions[0]
    expected_k, expected_latent = entries(cache.batch, 0, cache.used)
    assert k.equal(expected_k[:, :, positions])
    assert latent.equal(expected_latent[:, positions])
    needed = range(max(0, first_new - (window or cache.used) + 1), cache.used)
    assert set(needed) <= set(positions.tolist())
    assert len(set(positions.tolist())) == keys.length


@given(split=splits, window=windows)
def test_every_split_reads_back_what_was_written(split: list[int], window: int | None) -> None:
    cache = make_cache(sum(split), window)
    for new in split:
        queries, keys, k, latent = feed(cache, new)
        assert queries.start == cache.used - new
        assert queries.positions.tolist() == [list(range(cache.used - new, cache.used))]
        check_read(cache, keys, k, latent, window, new)


@given(split=splits, window=st.integers(1, 6))
def test_a_ring_holds_no_more_than_its_window(split: list[int], window: int) -> None:
    cache = make_cache(sum(split), window)
    assert cache.nbytes == 2 * min(window, sum(split)) * (2 * 3 + 4) * 4
    before = cache.nbytes
    for new in split:
        feed(cache, new)
    assert cache.nbytes == before


@given(split=splits, window=windows)
def test_running_a_layer_twice_before_the_cache_advances_does_no_harm(split: list[int], window: int | None) -> None:
    cache = make_cache(sum(split) + 3, window)
    state = cache.layers[0]
    assert state is not None
    for new in split:
        for tried in (1, 3):  # calls that never came to their end
            k, latent = entries(cache.batch, 500, tried)
            state.append(k=k, latent=latent)
        _, keys, k, latent = feed(cache, new)
        seen = keys.positions[0] > cache.used - new - (window or cache.used + 1)  # what lies outside no query sees
        state_k, state_latent = entries(cache.batch, 0, cache.used)
        assert k[:, :, seen].equal(state_k[:, :, keys.positions[0][seen]])
        assert latent[:, seen].equal(state_latent[:, keys.positions[0][seen]])


@given(split=splits, window=windows, data=st.data())
def test_documents_restart_positions_and_go_on_across_calls(
    split: list[int], window: int | None, data: st.DataObject
) -> None:
    total = sum(split)
    ids = torch.tensor([data.draw(st.lists(st.integers(0, 1), min_size=total, max_size=total)) for _ in range(2)])
    whole = make_cache(total).place(2, total, ids)
    cache = make_cache(total, window)
    assert whole.documents is not None
    for new in split:
        here = slice(cache.used, cache.used + new)
        queries, keys, k, _ = feed(cache, new, ids[:, here])
        assert queries.start is None
        assert queries.positions.equal(whole.positions[:, here])
        assert queries.documents is not None
        assert queries.documents.equal(whole.documents[:, here])
        tokens = (k[:, 0, :, 0] - 1000 * torch.arange(2).unsqueeze(1)).long()  # which token each entry came from
        assert keys.documents is not None
        assert keys.positions.equal(whole.positions.gather(1, tokens))
        assert keys.documents.equal(whole.documents.gather(1, tokens))


def test_tokens_without_a_document_go_on_with_the_last_one() -> None:
    cache = make_cache(6)
    feed(cache, 3, torch.tensor([[7, 7, 8], [7, 8, 8]]))
    queries, *_ = feed(cache, 2)
    assert queries.positions.tolist() == [[1, 2], [2, 3]]
    assert queries.documents is not None
    assert queries.documents.tolist() == [[1, 1], [1, 1]]


def test_documents_may_begin_after_plain_text() -> None:
    cache = make_cache(6)
    feed(cache, 3)
    queries, keys, *_ = feed(cache, 2, torch.tensor([[4, 4], [4, 5]]))
    assert queries.positions.tolist() == [[0, 1], [0, 0]]
    assert keys.documents is not None
    assert keys.documents.tolist() == [[0, 0, 0, 1, 1], [0, 0, 0, 1, 2]]
    assert keys.positions.tolist() == [[0, 1, 2, 0, 1], [0, 1, 2, 0, 0]]


def test_documents_of_a_call_that_failed_are_forgotten() -> None:
    cache = make_cache(6)
    cache.place(2, 3, torch.tensor([[1, 2, 2], [1, 1, 1]]))
    queries, keys, *_ = feed(cache, 3)
    assert queries.start == 0
    assert keys.documents is None


@given(split=splits, window=windows, data=st.data())
def test_cropped_tokens_leave_no_trace(split: list[int], window: int | None, data: st.DataObject) -> None:
    total = sum(split)
    cache = make_cache(total, window)
    for new in split:
        feed(cache, new)
    keep = data.draw(st.integers(0, total))
    if window is not None and total > window and keep not in (0, total):
        assert not cache.can_crop(keep)
        with pytest.raises(GenerationError, match="cannot go back"):
            cache.crop(keep)
        return
    assert cache.can_crop(keep)
    cache.crop(keep)
    assert cache.used == keep
    if keep < total:
        _, keys, k, latent = feed(cache, total - keep)
        check_read(cache, keys, k, latent, window, total - keep)


def test_cropping_to_nothing_forgets_documents_and_registers() -> None:
    cache = make_cache(4, registers=True)
    state = cache.layers[0]
    assert state is not None
    state.write("tail", torch.ones(2, 5))
    feed(cache, 3, torch.tensor([[1, 2, 2], [1, 1, 1]]))
    cache.crop(0)
    assert not state.read("tail").any()
    queries, *_ = feed(cache, 2)
    assert queries.start == 0


def test_cropping_backwards_past_the_start_or_forwards_is_a_mistake() -> None:
    cache = make_cache(4)
    feed(cache, 2)
    for n_tokens in (-1, 3):
        with pytest.raises(ValueError, match="cannot crop a cache of 2 tokens"):
            cache.crop(n_tokens)


@given(split=splits, window=windows, rows=st.lists(st.integers(0, 1), min_size=1, max_size=4), documents=st.booleans())
def test_reordered_rows_carry_all_they_had(
    split: list[int], window: int | None, rows: list[int], documents: bool
) -> None:
    cache = make_cache(sum(split) + 1, window)
    ids = torch.tensor([[0], [1]]).expand(2, sum(split)) * torch.arange(sum(split)) if documents else None
    for new in split:
        feed(cache, new, None if ids is None else ids[:, cache.used : cache.used + new])
    past = cache.clone()
    cache.reorder(torch.tensor(rows))
    assert cache.batch == len(rows)
    _, keys_before, k_before, _ = feed(past, 1)
    queries, keys, k, _ = feed(cache, 1)
    old = keys.positions.shape[-1] - 1 if window is None else None
    if old is not None:  # the last entry is the new token's, marked by its new row
        assert k[:, :, :old].equal(k_before[rows][:, :, :old])
    if documents:
        assert queries.documents is not None
        assert keys.documents is not None
        assert keys_before.documents is not None
        assert keys.documents.equal(keys_before.documents[rows])
        assert keys.positions.equal(keys_before.positions[rows])


@given(split=splits, window=windows, more=st.integers(1, 6), documents=st.booleans())
def test_a_grown_cache_keeps_what_it_had(split: list[int], window: int | None, more: int, documents: bool) -> None:
    total = sum(split)
    cache, ids = make_cache(total, window), torch.arange(total).expand(2, -1) // 2 if documents else None
    for new in split:
        feed(cache, new, None if ids is None else ids[:, cache.used : cache.used + new])
    with pytest.raises(GenerationError, match=f"room for {total} tokens and {total + more} were asked for"):
        cache.place(2, more, None)
    cache.grow(total + more)
    cache.grow(1)  # never shrinks
    for _ in range(more):
        _, keys, k, latent = feed(cache, 1)
    if documents:
        assert keys.documents is not None
        expected = [min(t, total - 1) // 2 for t in range(total + more)]
        tokens = (k[0, 0, :, 0]).long().tolist()
        assert keys.documents[0].tolist() == [expected[t] for t in tokens]
    else:
        check_read(cache, keys, k, latent, window, 1)


@given(split=splits, window=windows)
def test_a_clone_goes_its_own_way(split: list[int], window: int | None) -> None:
    cache = make_cache(sum(split) + 2, window, registers=True)
    for new in split:
        feed(cache, new)
    twin = cache.clone()
    state, other = cache.layers[0], twin.layers[0]
    assert state is not None
    assert other is not None
    other.write("tail", torch.ones(2, 5))
    _, keys, k, latent = feed(cache, 1)
    check_read(cache, keys, k, latent, window, 1)
    feed(twin, 2)
    assert (cache.used, twin.used) == (sum(split) + 1, sum(split) + 2)
    assert other.read("tail").all()
    assert not state.read("tail").any()
    _, keys, k, latent = feed(cache, 1)
    check_read(cache, keys, k, latent, window, 1)
    assert twin.nbytes == cache.nbytes


def test_a_register_is_written_when_the_cache_advances_and_not_before() -> None:
    cache = make_cache(4, registers=True)
    state = cache.layers[0]
    assert state is not None
    state.write("tail", torch.ones(2, 5, dtype=torch.float64))
    assert not state.read("tail").any()
    cache.advance(1)
    assert state.read("tail").equal(torch.ones(2, 5))
    assert not cache.can_crop(0) or cache.used == 1
    feed(cache, 1)
    assert not cache.can_crop(1)


def test_bytes_are_those_of_the_tensors() -> None:
    state = LayerState(
        3, 7, torch.bfloat16, CPU, streams={"k": (2, 8)}, registers={"s": (4, 5)}, register_dtype=torch.float32
    )
    assert Cache([state, None], 3, 7, CPU).nbytes == 3 * (7 * 2 * 8 * 2 + 4 * 5 * 4)


def test_another_batch_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="made for a batch of 2, not 3"):
        make_cache(4).place(3, 1, None)


def test_entries_are_kept_in_the_cache_s_dtype() -> None:
    state = LayerState(1, 4, torch.bfloat16, CPU, streams={"k": (1, 2)}, window=2)
    cache = Cache([state], 1, 4, CPU)
    for new in (1, 3):
        cache.place(1, new, None)
        (k,) = state.append(k=torch.randn(1, 1, new, 2))
        cache.advance(new)
        assert k.dtype == torch.bfloat16


def test_key_spans_are_made_once_a_call_before_any_layer_runs() -> None:
    layers = [LayerState(1, 8, torch.float32, CPU, streams={"k": (1, 2)}) for _ in range(2)]
    cache = Cache(layers, 1, 8, CPU)
    for new in (3, 2):
        cache.place(1, new, None)
        assert layers[0].keys(new) is layers[1].keys(new)
        assert layers[0].keys(new).length == cache.used + new
        cache.advance(new)


def test_a_text_is_as_long_as_its_cache_was_made_for() -> None:
    """Every call is told the same, a grown cache what it was told first, a padded row its own room."""
    cache = make_cache(6)
    assert [told(cache, new) for new in (1, 3)] == [6, 6]
    cache.grow(9)
    assert told(cache, 2) == 6
    cache.crop(0)
    assert told(cache, 2) == 9
    padded = make_cache(6)
    rows = padded.place(2, 3, torch.tensor([[0, 0, 1], [1, 1, 1]])).text_lengths
    assert isinstance(rows, Tensor)
    assert rows.tolist() == [[6, 6, 4], [6, 6, 6]]
    padded.advance(3)
    later = padded.place(2, 2, None).text_lengths
    assert isinstance(later, Tensor)
    assert later.tolist() == [[4, 4], [6, 6]]


def told(cache: Cache, new: int) -> int | Tensor:
    lengths = cache.place(2, new, None).text_lengths
    cache.advance(new)
    return lengths
