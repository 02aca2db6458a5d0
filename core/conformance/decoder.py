"""What every decoder keeps to, whichever part is under test in it: time, documents, rows, cache."""

from __future__ import annotations

from typing import Any

import torch

from lamina.core.cache import Cache, LayerState
from lamina.core.conformance.case import Case, tokens
from lamina.core.conformance.checks import NotApplicable, Wrong, check
from lamina.core.conformance.texts import LONG, all_splits, other, run, same, splits
from lamina.core.context import Context
from lamina.core.decoder import Decoder

IN_TIME = ("attention", "position", "residual", "ffn", "router", "rope_scaling")


def in_order(case: Case) -> Decoder:
    """The decoder, when the component does not say that it looks at later tokens."""
    if not getattr(case.entry.component, "tokenwise", True):
        raise NotApplicable("it says that it weighs tokens against each other")
    decoder = case.decoder()
    if decoder.lookahead:
        raise NotApplicable("its mask looks at later tokens")
    return decoder


@check(*IN_TIME, "norm", "activation", name="no future")
@torch.no_grad()
def sees_no_future(case: Case) -> None:
    """A token's logits do not depend on the tokens after it."""
    decoder = in_order(case)
    for length in (2, 3, 8) if case.varied else (2, 3, 4, 5, 8, LONG):
        ids = tokens(2, length)
        want = decoder(ids)
        for t in range(1, length):
            changed = torch.cat([ids[:, :t], other(ids[:, t:])], 1)
            same(
                decoder(changed)[:, :t],
                want[:, :t],
                f"the logits of the first {t} tokens to stay when later ones change",
                length=length,
                changed_from=t,
            )


@check(*IN_TIME, name="documents apart")
@torch.no_grad()
def documents_are_apart(case: Case) -> None:
    """A document packed in a row with others has the logits it has alone."""
    decoder = in_order(case)
    longest = 3 if case.varied else 5
    packed = [split for length in range(2, longest + 1) for split in splits(length, 2)]
    for lengths in (*packed, (5, 4, 3), (1, 7, 4)):
        ids = tokens(2, sum(lengths))
        rows = [lengths, lengths[::-1]]
        documents = torch.tensor([[7 - i for i, n in enumerate(row) for _ in range(n)] for row in rows])
        got = decoder(ids, document_ids=documents)
        for row, own in enumerate(rows):
            pieces = zip(
                torch.split(ids[row : row + 1], list(own), 1),
                torch.split(got[row : row + 1], list(own), 1),
                strict=True,
            )
            for number, (alone, logits) in enumerate(pieces, 1):
                same(
                    logits,
                    decoder(alone),
                    "every document of a row to have the logits it has alone, its positions from 0",
                    document_lengths=own,
                    document=number,
                )


@check(*IN_TIME, name="rows apart")
@torch.no_grad()
def rows_are_apart(case: Case) -> None:
    """A row's logits do not depend on the other rows, nor on padding before it."""
    decoder = in_order(case)
    for length in (3,) if case.varied else (1, 2, 3, 6):
        ids = tokens(3, length)
        got = decoder(ids)
        for row in range(3):
            same(
                got[row : row + 1],
                decoder(ids[row : row + 1]),
                "a row to have the logits it has alone",
                batch=3,
                length=length,
                row=row,
            )
    for padding, length in ((2, 3), (7, 3)) if case.varied else ((1, 1), (1, 2), (2, 3), (7, 3)):
        ids = tokens(2, padding + length + 2)
        is_padding = torch.arange(padding + length) < torch.tensor([[padding], [0]])  # (2, padding + length)
        cache = decoder.make_cache(2, ids.shape[1])
        begun = decoder(ids[:, : padding + length], document_ids=is_padding.long().neg(), cache=cache)
        gone_on = [decoder(ids[:, t : t + 1], cache=cache) for t in range(padding + length, ids.shape[1])]
        got = torch.cat([begun, *gone_on], 1)
        for row, start in ((0, padding), (1, 0)):
            same(
                got[row : row + 1, start:],
                decoder(ids[row : row + 1, start:]),
                "a row padded on the left, then decoded with a cache, to have the logits it has alone",
                padding=start,
                prompt=padding + length - start,
            )


@check(*IN_TIME, name="any cache split")
@torch.no_grad()
def any_split_is_one_call(case: Case) -> None:
    """Cached calls, however a text is cut into them, give the logits of one full call."""
    decoder = in_order(case)
    for split in all_splits(3 if case.varied else 5):
        ids = tokens(2, sum(split))
        same(
            run(decoder, ids, split),
            decoder(ids),
            "cached calls to give the logits of one call without a cache",
            length=sum(split),
            calls_of=split,
        )


@check("attention", "position", "ffn", "rope_scaling", name="documents in a cache")
@torch.no_grad()
def documents_stay_apart_in_a_cache(case: Case) -> None:
    """Documents stay apart when they come in cached calls, wherever calls and documents begin."""
    decoder = in_order(case)
    longest = 2 if case.varied else 4
    packed = [(lengths, split) for n in range(2, longest + 1) for lengths in splits(n, 2) for split in splits(n)]
    for lengths, split in (*packed, ((3, 5, 5), (1,) * LONG), ((3, 5, 5), (2, 7, 4)), ((6, 7), (4, 4, 1, 4))):
        ids = tokens(2, sum(lengths))
        documents = torch.tensor([[i for i, n in enumerate(lengths) for _ in range(n)]] * 2)
        documents[1] = documents[1].flip(0)  # another cut in the other row
        same(
            run(decoder, ids, split, documents),
            decoder(ids, document_ids=documents),
            "cached calls with document ids to give the logits of one call with them",
            document_lengths=lengths,
            calls_of=split,
        )


@check("attention", name="cache moves")
@torch.no_grad()
def a_cache_can_be_moved(case: Case) -> None:
    """A cache can be reordered, cloned, grown and, where it says so, cropped."""
    decoder = in_order(case)
    for first, last in ((9, 3),) if case.varied else ((1, 1), (2, 2), (9, 3)):
        ids = tokens(3, first + last)
        cache = decoder.make_cache(3, first + last)
        decoder(ids[:, :first], cache=cache)
        twin = cache.clone()
        rows = torch.tensor([2, 0, 0, 1])
        at: dict[str, Any] = {"tokens_before": first, "tokens_after": last}

        cache.reorder(rows)
        got, want = decoder(ids[rows, first:], cache=cache), decoder(ids[rows])[:, first:]
        same(got, want, "a reordered cache to go on with the rows that were picked", rows=rows.tolist(), **at)

        got, want = decoder(ids[:, first:], cache=twin.clone()), decoder(ids)[:, first:]
        same(got, want, "a clone to be untouched by what is done to the other", **at)

        if twin.can_crop(first - 1) and first > 1:
            again = twin.clone()
            again.crop(first - 1)
            got = decoder(other(ids[:, first - 1 : first]), cache=again)
            want = decoder(torch.cat([ids[:, : first - 1], other(ids[:, first - 1 : first])], 1))[:, -1:]
            same(got, want, "a cropped cache to have forgotten the last token", **at)

        short = decoder.make_cache(3, first)
        decoder(ids[:, :first], cache=short)
        short.grow(first + last)
        same(
            decoder(ids[:, first:], cache=short), decoder(ids)[:, first:], "a cache to keep its past as it grows", **at
        )


@check("attention", name="cache not advanced")
@torch.no_grad()
def a_layer_does_not_advance_the_cache(case: Case) -> None:
    """Running a layer twice on the same tokens does no harm: it is the decoder that moves the cache on."""
    decoder = case.decoder()
    for module in case.own(decoder):
        once = module.forward

        def twice(x: torch.Tensor, context: Context, cache: LayerState | None = None, once: object = once) -> object:
            once(x, context, cache)  # type: ignore[operator]
            return once(x, context, cache)  # type: ignore[operator]

        object.__setattr__(module, "forward", twice)
    eager = case.decoder()
    for split in ((2, 1), (7, 5, 1)) if case.varied else ((1, 1), (2, 1), (3, 2, 1), (7, 5, 1)):
        ids = tokens(2, sum(split))
        same(
            run(decoder, ids, split),
            eager(ids),
            "a layer that is run twice on the same tokens to give the same result",
            length=sum(split),
            calls_of=split,
        )


@check("attention", name="cache room")
@torch.no_grad()
def a_cache_is_no_larger_than_asked_for(case: Case) -> None:
    """A state holds the batch and dtype it was made for, and one token fewer takes no more room."""
    decoder = case.decoder(dtype=torch.float32)
    sizes = [decoder.make_cache(2, length).nbytes for length in (1, 2, 8, 16)]
    if sorted(sizes) != sizes:
        raise Wrong("a longer cache to take no less room than a shorter one", f"{sizes} bytes for 1, 2, 8, 16 tokens")
    cache: Cache = decoder.make_cache(3, 4)
    for state in cache.layers:
        for tensor in state.tensors() if state is not None else ():
            if tensor.shape[0] != 3:
                raise Wrong(
                    "every tensor of a state to begin with the batch", f"the shape {tuple(tensor.shape)}", batch=3
                )
