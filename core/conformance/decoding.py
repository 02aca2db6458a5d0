"""Decodings: with one token left they take it, they stop where they are told, and rows do not depend on each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lamina.core.build import build
from lamina.core.component import ComponentConfig
from lamina.core.conformance.case import CONTEXT, VOCAB, Case, generators, move, tokens
from lamina.core.conformance.checks import Wrong, check
from lamina.core.decoder import Decoder
from lamina.core.decoding import Decoding, Request
from lamina.core.generate import DecoderStep
from lamina.core.sampler import History, Sampler

NEW = 6
PROMPTS = (1, 3, 5)  # lengths


class Likeliest(Sampler):
    """Leaves the most likely token alone."""

    def __init__(self, config: Any = None) -> None:
        self.config = config or ComponentConfig()

    def forward(self, logits: Tensor, history: History) -> Tensor:
        best = logits.argmax(-1, keepdim=True)
        return torch.full_like(logits, -torch.inf).scatter(-1, best, 0.0)


def _decoder(case: Case) -> Decoder:
    decoder = build(case.plain_spec)
    move(decoder)
    return decoder.eval()


def _request(rows: Sequence[int] = (0, 1, 2), **changes: Any) -> Request:
    lengths = torch.tensor([PROMPTS[row] for row in rows])
    longest = int(lengths.max())
    ids = torch.stack([tokens(1, longest, seed=row)[0] for row in rows])
    for place, length in enumerate(lengths.tolist()):
        ids[place, : longest - length] = 0
        ids[place, longest - length :] = tokens(1, 8, seed=rows[place])[0, :length]
    request = Request(ids, lengths, NEW, CONTEXT, generators=generators(rows))
    return replace(request, **changes)


def _decode(case: Case, decoder: Decoder, request: Request) -> list[list[int]]:
    """The tokens of each row, its form checked on the way."""
    strategy: Decoding = case.build(generators=request.generators, stop_ids=request.stop_ids)
    batch = len(request.lengths)
    room = int(request.limits.max())
    pieces = []
    with torch.inference_mode():
        for piece in strategy.decode(DecoderStep(decoder, room), request):
            if piece.dtype != torch.int64 or piece.dim() != 2 or piece.shape[0] != batch or piece.shape[1] < 1:
                raise Wrong(f"pieces ({batch}, n) int64 with n >= 1", f"{tuple(piece.shape)} {piece.dtype}")
            pieces.append(piece)
    found: list[list[int]] = torch.cat(pieces, 1).tolist() if pieces else [[] for _ in range(batch)]
    rows = []
    for row, limit in zip(found, request.limits.tolist(), strict=True):
        taken = [token for token in row if token != -1]
        if row[len(taken) :] != [-1] * (len(row) - len(taken)):
            raise Wrong("-1 after a row's end and nowhere else", f"{row}")
        if any(not 0 <= token < VOCAB for token in taken):
            raise Wrong(f"ids from 0 to {VOCAB - 1}", f"{row}")
        if len(taken) > limit:
            raise Wrong(f"at most {limit} new tokens in a row", f"{len(taken)}", row=row)
        stops = [place for place, token in enumerate(taken) if token in request.stop_ids]
        if stops and stops[0] != len(taken) - 1:
            raise Wrong("a row to end after its first stop token", f"{taken}", stop_ids=sorted(request.stop_ids))
        if not stops and len(taken) < limit:
            raise Wrong(f"{limit} new tokens in a row that meets no stop token", f"{len(taken)}", row=row)
        rows.append(taken)
    return rows


@torch.no_grad()
def _likeliest(decoder: Decoder, request: Request) -> list[list[int]]:
    """The most likely tokens, one full pass for each."""
    rows = []
    for ids, length, limit in zip(request.token_ids, request.lengths.tolist(), request.limits.tolist(), strict=True):
        text = ids[len(ids) - length :].tolist()
        for _ in range(limit):
            text.append(int(decoder(torch.tensor([text]))[0, -1].argmax()))
            if text[-1] in request.stop_ids:
                break
        rows.append(text[length:])
    return rows


@check("decoding", name="greedy limit")
def one_token_left_is_taken(case: Case) -> None:
    """Where the chain leaves one token, it is taken: the most likely one of every full pass."""
    decoder = _decoder(case)
    for rows in ((0,), (2,), (0, 1, 2)):
        for new in (1, 2, NEW):
            request = _request(rows, chain=[Likeliest()], max_new_tokens=new)
            got, want = _decode(case, decoder, request), _likeliest(decoder, request)
            if got != want:
                raise Wrong("the likeliest tokens", f"{got}, not {want}", prompts=len(rows), new_tokens=new)


@check("decoding", name="stops")
def it_stops_where_told(case: Case) -> None:
    """A row ends after a stop token, at max_new_tokens and where the context is full; the others go on."""
    decoder = _decoder(case)
    want = _likeliest(decoder, _request())
    for stop in (want[0][0], want[1][1], want[2][3]):
        request = _request(chain=[Likeliest()], stop_ids=frozenset({stop}))
        if (got := _decode(case, decoder, request)) != (expected := _likeliest(decoder, request)):
            raise Wrong(f"rows to end after {stop}, and only those", f"{got}, not {expected}")
    for full in (max(PROMPTS), max(PROMPTS) + 1):
        request = _request(chain=[Likeliest()], context_length=full)
        if (got := _decode(case, decoder, request)) != (expected := _likeliest(decoder, request)):
            raise Wrong(f"rows to end at a context of {full} tokens", f"{got}, not {expected}", prompts=PROMPTS)
    _decode(case, decoder, _request(stop_ids=frozenset(range(0, VOCAB, 2))))


@check("decoding", name="rows apart")
def rows_are_apart(case: Case) -> None:
    """A row's tokens are those it has alone, its generator the same."""
    decoder = _decoder(case)
    together = _decode(case, decoder, _request())
    for row in range(3):
        alone = _decode(case, decoder, _request((row,)))[0]
        if together[row] != alone:
            raise Wrong("the tokens a row has alone", f"{together[row]}, not {alone}", row=row, prompt=PROMPTS[row])


@check("decoding", name="repeatable")
def the_same_again(case: Case) -> None:
    """The same prompts and generators give the same tokens."""
    decoder = _decoder(case)
    if (got := _decode(case, decoder, _request())) != (want := _decode(case, decoder, _request())):
        raise Wrong("the same tokens again", f"{got}, then {want}")
