"""A pass at chosen positions, and a small decoder around a scheme with what must hold of every one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_specs import REGISTRY
from torch import Tensor
from torch.testing import assert_close

from lamina.core import Context, Decoder, Span
from lamina.core.build import build
from lamina.core.resolve import resolve_data

NEAR = {"atol": 1e-4, "rtol": 1e-4}


@pytest.fixture
def context_at() -> Callable[[list[list[int]]], Context]:
    """A context whose tokens stand at these positions, one list a row, each row a document of its own making."""

    def make(positions: list[list[int]]) -> Context:
        places = torch.tensor(positions)
        return Context(torch.zeros_like(places), Span(places, torch.zeros_like(places)))

    return make


@pytest.fixture(scope="session")
def decoder_with() -> Callable[..., Decoder]:
    """Two layers of grouped-query attention with this scheme, no parameter at its initial value."""

    def make(position: str | dict[str, Any], *, device: str = "cpu", **attention: Any) -> Decoder:
        spec = {
            "lamina": 1,
            "vocab_size": 23,
            "dim": 16,
            "context_length": 32,
            "position": position,
            "norm": "rms",
            "block": {
                "attention": {"name": "gqa", "n_heads": 4, "n_kv_heads": 2, "head_dim": 8, **attention},
                "ffn": {"name": "mlp", "hidden_dim": 16},
            },
            "layers": 2,
        }
        decoder = build(resolve_data(spec, REGISTRY), device=device).eval()
        generator = torch.Generator().manual_seed(0)
        if device == "cpu":
            with torch.no_grad():
                for parameter in decoder.parameters():
                    # What a scheme learns beside matrices may have to be positive.
                    draw = torch.randn if parameter.dim() > 1 else torch.rand
                    parameter.add_(draw(parameter.shape, generator=generator) * 0.4)
        return decoder

    return make


@pytest.fixture(scope="session")
def check_scheme(decoder_with: Callable[..., Decoder]) -> Callable[..., None]:
    """The invariants, for a full mask, a window and, beside them, capped scores."""

    def check(position: str | dict[str, Any]) -> None:
        for attention in ({}, {"mask": {"name": "sliding", "window": 4}, "softcap": 3.0}):
            decoder = decoder_with(position, **attention)
            with torch.no_grad():
                _check_splits(decoder)
                _check_documents(decoder)
                _check_rows(decoder)
            _check_gradients(decoder)
        decoder = decoder_with(position, device="meta")
        ids = torch.zeros(2, 5, dtype=torch.int64, device="meta")
        assert decoder(ids, document_ids=ids).shape == decoder(ids).shape == (2, 5, 23)
        cache = decoder.make_cache(2, 6)
        decoder(ids, cache=cache)
        assert decoder(ids[:, :1], cache=cache).shape == (2, 1, 23)

    return check


def _tokens(batch: int, length: int) -> Tensor:
    return torch.randint(23, (batch, length), generator=torch.Generator().manual_seed(1))


def _in_calls(decoder: Decoder, ids: Tensor, split: list[int], documents: Tensor | None = None) -> Tensor:
    cache = decoder.make_cache(*ids.shape)
    names = [None] * len(split) if documents is None else documents.split(split, 1)
    calls = [
        decoder(call, cache=cache, document_ids=name) for call, name in zip(ids.split(split, 1), names, strict=True)
    ]
    return torch.cat(calls, 1)


SPLITS = [[1] * 11, [5, 1, 1, 1, 3], [2, 7, 1, 1]]
DOCUMENTS = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 1, 2, 2], [5, 6, 6, 6, 6, 6, 6, 6, 7, 7, 7]])


def _check_splits(decoder: Decoder) -> None:
    ids = _tokens(2, 11)
    whole = decoder(ids)
    packed = decoder(ids, document_ids=DOCUMENTS)
    assert not torch.allclose(whole, packed)
    for split in SPLITS:
        assert_close(_in_calls(decoder, ids, split), whole, **NEAR)
        assert_close(_in_calls(decoder, ids, split, DOCUMENTS), packed, **NEAR)


def _check_documents(decoder: Decoder) -> None:
    ids = _tokens(2, 11)
    packed = decoder(ids, document_ids=DOCUMENTS)
    for row, places in [(0, slice(3, 9)), (1, slice(1, 8)), (0, slice(9, 11))]:
        assert_close(packed[row : row + 1, places], decoder(ids[row : row + 1, places]), **NEAR)
    other = torch.where(DOCUMENTS[:, 4:5] == DOCUMENTS, ids, (ids + 1) % 23)
    changed, kept = decoder(other, document_ids=DOCUMENTS), DOCUMENTS[:, 4:5] == DOCUMENTS
    assert changed[kept].equal(packed[kept])


def _check_rows(decoder: Decoder) -> None:
    ids = _tokens(3, 7)
    whole = decoder(ids)
    assert_close(decoder(ids[1:2]), whole[1:2], **NEAR)
    later = ids.clone()
    later[:, 5:] = (later[:, 5:] + 1) % 23
    assert_close(decoder(later)[:, :5], whole[:, :5], **NEAR)


def _check_gradients(decoder: Decoder) -> None:
    decoder(_tokens(2, 9)).square().sum().backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
