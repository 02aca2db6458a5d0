"""What holds for every decoder, whatever it is made of: tried on random tiny specs."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_specs import CONTEXT, VOCAB, build_moved, has_experts, tiny_specs, tokens
from torch import Tensor
from torch.testing import assert_close

from lamina.core.cache import Cache
from lamina.core.decoder import Decoder
from lamina.core.errors import GenerationError
from lamina.core.resolve import resolve_data
from lamina.core.resolved import ResolvedSpec

TOLERANCE: dict[str, Any] = {"atol": 1e-4, "rtol": 1e-4}
some = settings(max_examples=40, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))

splits = st.lists(st.integers(1, 5), min_size=1, max_size=6)  # lengths of the calls a text is cut into


@st.composite
def documents(draw: st.DrawFn, length: int, rows: int = 2) -> Tensor:
    """(rows, length) document ids, cut at other places in each row."""
    cuts = st.sets(st.integers(1, length - 1), max_size=3) if length > 1 else st.just(set[int]())
    ids = [[sum(t >= cut for cut in drawn) for t in range(length)] for drawn in (draw(cuts) for _ in range(rows))]
    return torch.tensor(ids)


@torch.no_grad()
def in_calls(decoder: Decoder, ids: Tensor, lengths: list[int], cache: Cache, docs: Tensor | None = None) -> Tensor:
    """Logits of `ids`, fed to the cache in calls of these lengths."""
    parts, start = [], 0
    for length in lengths:
        end = slice(start, start + length)
        parts.append(decoder(ids[:, end], document_ids=None if docs is None else docs[:, end], cache=cache))
        start += length
    return torch.cat(parts, 1)


@some
@given(spec=tiny_specs(), changed=st.integers(1, 11))
@torch.no_grad()
def test_no_position_sees_its_future(spec: ResolvedSpec, changed: int) -> None:
    decoder, before = build_moved(spec), tokens(2, 12)
    after = before.clone()
    after[:, changed:] = (after[:, changed:] + 1) % VOCAB
    was, now = decoder(before), decoder(after)
    assert_close(now[:, :changed], was[:, :changed], **TOLERANCE)
    assert not now[:, changed].allclose(was[:, changed])


@some
@given(spec=tiny_specs(), split=splits)
def test_any_split_into_cached_calls_gives_the_logits_of_one_call(spec: ResolvedSpec, split: list[int]) -> None:
    decoder, ids = build_moved(spec), tokens(2, sum(split[:4]))
    with torch.no_grad():
        whole = decoder(ids)
    split = split[:4]
    assert_close(in_calls(decoder, ids, split, decoder.make_cache(2, sum(split))), whole, **TOLERANCE)


@some
@given(spec=tiny_specs(), split=splits, data=st.data())
def test_a_cache_keeps_documents_apart_in_any_split(spec: ResolvedSpec, split: list[int], data: st.DataObject) -> None:
    split = [1, *split[:4]]
    decoder, ids, docs = build_moved(spec), tokens(2, sum(split)), data.draw(documents(sum(split)))
    with torch.no_grad():
        whole = decoder(ids, document_ids=docs)
    cached = in_calls(decoder, ids, split, decoder.make_cache(2, sum(split)), docs)
    assert_close(cached, whole, **TOLERANCE)


@some
@given(spec=tiny_specs(), data=st.data())
@torch.no_grad()
def test_a_packed_document_has_the_logits_it_has_alone(spec: ResolvedSpec, data: st.DataObject) -> None:
    decoder, ids, docs = build_moved(spec), tokens(2, 12), data.draw(documents(12))
    packed = decoder(ids, document_ids=docs)
    for row in range(2):
        for document in docs[row].unique().tolist():
            own = docs[row] == document
            assert_close(packed[row, own], decoder(ids[row, own].unsqueeze(0))[0], **TOLERANCE)


@some
@given(spec=tiny_specs(), data=st.data())
@torch.no_grad()
def test_documents_do_not_leak_into_each_other(spec: ResolvedSpec, data: st.DataObject) -> None:
    """Not a bit of it. Only experts work on all documents at once, and a product's shape moves its rounding."""
    decoder, before, docs = build_moved(spec), tokens(2, 12), data.draw(documents(12))
    changed = docs == data.draw(st.integers(0, int(docs.min(0).values.max())))
    was, now = (decoder(ids, document_ids=docs) for ids in (before, torch.where(changed, (before + 1) % VOCAB, before)))
    tolerance = {"atol": 1e-5, "rtol": 1e-5} if has_experts(spec) else {"atol": 0, "rtol": 0}
    assert_close(now[~changed], was[~changed], **tolerance)


@some
@given(spec=tiny_specs(), lengths=st.lists(st.integers(1, 8), min_size=2, max_size=3), new=st.integers(1, 4))
@torch.no_grad()
def test_rows_padded_on_the_left_are_as_they_are_alone(spec: ResolvedSpec, lengths: list[int], new: int) -> None:
    """Padding is a document of its own; the tokens that follow in the cache belong to the prompt."""
    decoder, longest = build_moved(spec), max(lengths)
    rows = [tokens(1, length + new, seed=length) for length in lengths]
    text = torch.zeros(len(rows), longest + new, dtype=torch.int64)
    for b, (n, row) in enumerate(zip(lengths, rows, strict=True)):
        text[b, longest - n :] = row
    docs = torch.stack([(torch.arange(longest) >= longest - n).long() for n in lengths])
    cache = decoder.make_cache(len(rows), longest + new)
    logits = [decoder(text[:, :longest], document_ids=docs, cache=cache)[:, -1]]
    logits += [decoder(text[:, t : t + 1], cache=cache)[:, 0] for t in range(longest, longest + new)]
    for b, (n, row) in enumerate(zip(lengths, rows, strict=True)):
        alone = decoder(row)[0, n - 1 :]
        assert_close(torch.stack([step[b] for step in logits]), alone, **TOLERANCE)


@some
@given(
    spec=tiny_specs(),
    lengths=st.lists(st.integers(1, 10), min_size=1, max_size=3),
    behind=st.integers(0, 3),
    new=st.integers(1, 4),
)
@torch.no_grad()
def test_texts_put_into_a_cache_go_on_as_they_would_alone(
    spec: ResolvedSpec, lengths: list[int], behind: int, new: int
) -> None:
    decoder, stand = build_moved(spec), max(lengths) + behind
    rows = [tokens(1, length + new, seed=length) for length in lengths]
    cache = decoder.make_cache(len(rows), stand + new)
    cache.stand_at(stand)
    for b, (n, row) in enumerate(zip(lengths, rows, strict=True)):
        alone = decoder.make_cache(1, n + new)
        decoder(row[:, :n], cache=alone)
        cache.put(b, alone)
    for t in range(new):
        ids = torch.cat([row[:, n + t : n + t + 1] for n, row in zip(lengths, rows, strict=True)])
        logits = decoder(ids, cache=cache)
        for b, (n, row) in enumerate(zip(lengths, rows, strict=True)):
            # As a cached text: what a part makes of a text may depend on how long its cache lets it become.
            whole = decoder(row, cache=decoder.make_cache(1, n + new))
            assert_close(logits[b, 0], whole[0, n + t], **TOLERANCE)


def followed(docs: Tensor | None, new: int) -> Tensor | None:
    """`docs` with `new` tokens more, which go on with the last document of their row."""
    return None if docs is None else torch.cat([docs, docs[:, -1:].expand(-1, new)], 1)


@some
@given(spec=tiny_specs(), split=splits, rows=st.lists(st.integers(0, 2), min_size=1, max_size=4), data=st.data())
@torch.no_grad()
def test_a_reordered_cache_goes_on_as_its_rows_would(
    spec: ResolvedSpec, split: list[int], rows: list[int], data: st.DataObject
) -> None:
    split = split[:3]
    past = sum(split)
    decoder, ids, docs = build_moved(spec), tokens(3, past), data.draw(st.none() | documents(past, 3))
    cache = decoder.make_cache(3, past + 3)
    in_calls(decoder, ids, split, cache, docs)
    cache.reorder(torch.tensor(rows))
    more = tokens(len(rows), 3, seed=1)
    whole = decoder(torch.cat([ids[rows], more], 1), document_ids=followed(None if docs is None else docs[rows], 3))
    assert_close(in_calls(decoder, more, [1, 2], cache), whole[:, past:], **TOLERANCE)


@some
@given(spec=tiny_specs(), split=splits, data=st.data())
@torch.no_grad()
def test_a_cropped_cache_goes_on_from_where_it_was_cut(
    spec: ResolvedSpec, split: list[int], data: st.DataObject
) -> None:
    split = split[:3]
    past = sum(split)
    decoder, ids, more = build_moved(spec), tokens(2, past), tokens(2, 2, seed=1)
    docs, kept = data.draw(st.none() | documents(past)), data.draw(st.integers(0, past))
    cache = decoder.make_cache(2, past + 2)
    in_calls(decoder, ids, split, cache, docs)
    if not cache.can_crop(kept):
        with pytest.raises(GenerationError, match="cannot go back"):
            cache.crop(kept)
        return
    cache.crop(kept)
    ahead = followed(docs[:, :kept], 2) if docs is not None and kept else None
    whole = decoder(torch.cat([ids[:, :kept], more], 1), document_ids=ahead)
    assert_close(in_calls(decoder, more, [1, 1], cache), whole[:, kept:], **TOLERANCE)


@some
@given(spec=tiny_specs(), split=splits, data=st.data())
@torch.no_grad()
def test_a_clone_and_a_grown_cache_hold_what_the_first_held(
    spec: ResolvedSpec, split: list[int], data: st.DataObject
) -> None:
    split = split[:3]
    past = sum(split)
    decoder, ids, docs = build_moved(spec), tokens(2, past + 3), data.draw(st.none() | documents(past))
    cache = decoder.make_cache(2, past)
    in_calls(decoder, ids[:, :past], split, cache, docs)
    twin = cache.clone()
    twin.grow(past + 3)
    expected = decoder(ids, document_ids=followed(docs, 3))[:, past:]
    assert_close(in_calls(decoder, ids[:, past:], [2, 1], twin), expected, **TOLERANCE)
    assert cache.used == past
    cache.grow(past + 3)
    assert_close(in_calls(decoder, ids[:, past:], [1, 2], cache), expected, **TOLERANCE)


@some
@given(spec=tiny_specs())
@torch.no_grad()
def test_a_deep_copy_is_another_decoder_with_the_same_logits(spec: ResolvedSpec) -> None:
    decoder, ids = build_moved(spec), tokens(2, 6)
    before = decoder(ids)
    twin = copy.deepcopy(decoder)
    for tensor in decoder.tensors().values():
        tensor.zero_()
    assert twin(ids).equal(before)
    assert (twin.head.weight is twin.embedding.tokens.weight) == spec.head.tied


@settings(some, max_examples=15)
@given(spec=tiny_specs())
def test_every_parameter_learns(spec: ResolvedSpec) -> None:
    decoder = build_moved(spec).train()
    context = decoder.context(tokens(4, CONTEXT))
    logits = decoder.head(decoder.run(context))
    (logits.square().mean() + sum(context.losses.values())).backward()
    idle = {name for name, p in decoder.named_parameters() if p.requires_grad and p.grad is None}
    assert not idle
    assert all(p.grad.isfinite().all() for p in decoder.parameters() if p.grad is not None)


@pytest.mark.parametrize("scale", [1.0, 0.5, "sqrt_dim"])
@torch.no_grad()
def test_embeddings_are_scaled_then_placed_then_normed(scale: float | str) -> None:
    spec = resolve_data({**SMALL, "position": "sinusoidal", "embedding": {"scale": scale, "norm": "rms"}})
    decoder, ids = build_moved(spec), tokens(2, 5)
    factor = 4.0 if scale == "sqrt_dim" else scale
    context = decoder.context(ids)
    assert decoder.embedding.position is not None
    assert decoder.embedding.norm is not None
    placed = decoder.embedding.position.embed(decoder.embedding.tokens.weight[ids] * factor, context)
    assert_close(decoder.embedding(ids, context), decoder.embedding.norm(placed))


@pytest.mark.parametrize("tied", [True, False])
@torch.no_grad()
def test_logits_are_scaled_then_biased_then_capped(tied: bool) -> None:
    decoder = build_moved(resolve_data({**SMALL, "head": {"tied": tied, "bias": True, "scale": 3.0, "softcap": 1.5}}))
    x = torch.randn(2, 3, 16)
    weight = decoder.embedding.tokens.weight if tied else decoder.tensors()["head.weight"]
    expected = 1.5 * torch.tanh((3.0 * x @ weight.T + decoder.tensors()["head.bias"]) / 1.5)
    assert_close(decoder.head(x), expected)
    ids = tokens(1, 4)
    assert decoder.norm is not None
    assert_close(decoder(ids), decoder.head(decoder.features(ids)))
    assert_close(decoder.features(ids).square().mean(), decoder.norm.weight.square().mean(), rtol=0.2, atol=0)


def test_dropout_falls_on_embeddings_in_training_only() -> None:
    decoder, ids = build_moved(resolve_data({**SMALL, "embedding": {"dropout": 0.5}})), tokens(1, 8)
    context = decoder.context(ids)
    assert not (decoder.embedding(ids, context) == 0).any()
    dropped = decoder.train().embedding(ids, context)
    assert 0.2 < (dropped == 0).float().mean() < 0.8


def test_calls_that_make_no_sense_are_a_programmers_mistake() -> None:
    decoder = build_moved(resolve_data(SMALL))
    with pytest.raises(ValueError, match=r"must be \(B, T\) integers"):
        decoder(torch.zeros(3).long())
    with pytest.raises(ValueError, match=r"must be \(B, T\) integers"):
        decoder(torch.zeros(1, 3))
    with pytest.raises(ValueError, match="must match token_ids"):
        decoder(tokens(1, 3), document_ids=torch.zeros(1, 2).long())
    with pytest.raises(ValueError, match="made for a batch of 2"):
        decoder(tokens(1, 3), cache=decoder.make_cache(2, 4))


def test_a_full_cache_says_so() -> None:
    decoder = build_moved(resolve_data(SMALL))
    cache = decoder.make_cache(1, 4)
    decoder(tokens(1, 3), cache=cache)
    with pytest.raises(GenerationError, match="room for 4 tokens and 5 were asked for"):
        decoder(tokens(1, 2), cache=cache)
    assert cache.used == 3


SMALL = {
    "lamina": 1,
    "vocab_size": VOCAB,
    "dim": 16,
    "context_length": 16,
    "norm": "rms",
    "position": "rope",
    "block": {"attention": {"name": "gqa", "n_heads": 2}, "ffn": "gated"},
    "layers": 2,
}
