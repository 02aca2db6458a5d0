"""How well a model predicts a text: the mean loss a token over the whole of it, perplexity, and bits a byte.

A text is cut into windows of `context` tokens; each token but the first is predicted once, from those of its window
that stand before it. Tokens go through the cache, by the backend's own path, so that what a backend costs shows.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lamina.core.component import Part
from lamina.core.decoder import Decoder
from lamina.core.errors import DataError, LaminaError
from lamina.core.model import Model, load
from lamina.core.registry import Registry, load_plugins
from lamina.core.tokenizer import Tokenizer
from lamina.core.train import open_corpus

CONTEXT = 1024  # tokens of a window, where the decoder's context allows and nothing else is asked for
LOGITS_AT_ONCE = 1 << 24  # numbers


@dataclass(frozen=True)
class Quality:
    """Of one backend."""

    backend: str
    loss: float  # nats a token
    perplexity: float
    bits_per_byte: float
    n_tokens: int
    n_bytes: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def evaluate(
    directory: str | Path,
    corpus: str | Path | Mapping[str, Any],
    *,
    backends: Sequence[str | dict[str, Any] | Part] = ("eager",),
    dtype: str = "float32",
    device: str = "cpu",
    context: int | None = None,
    max_tokens: int | None = None,
    registry: Registry | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> list[Quality]:
    """The same text through a model by each of `backends`. `max_tokens` ends it early."""
    registry = registry or load_plugins()
    source, found = open_corpus(corpus, registry), []
    for backend in backends:
        model = load(directory, dtype=dtype, device=device, backend=backend, registry=registry)
        if model.tokenizer is None:
            raise LaminaError(
                f"{directory}: has no tokenizer, so it reads no text", hint="evaluate a model that has one"
            )
        size = min(context or CONTEXT, model.decoder.context_length)
        if context is not None and context > size:
            raise LaminaError(
                f"a window of {context} tokens is longer than the context of {size}", hint="give --context"
            )
        windows = _windows(model.tokenizer, source.documents(), size, max_tokens)
        found.append(_quality(_name(backend), model, windows, tell))
    return found


def _name(backend: str | dict[str, Any] | Part) -> str:
    if isinstance(backend, dict):
        return " ".join(
            [str(backend.get("name")), *(f"{key}={value}" for key, value in backend.items() if key != "name")]
        )
    return backend if isinstance(backend, str) else backend.name


def _windows(
    tokenizer: Tokenizer, texts: Iterator[str], size: int, most: int | None
) -> Iterator[tuple[list[int], int]]:
    """Up to `size` + 1 ids, of which all but the first are to be predicted, and the bytes of text these make whole."""
    left = math.inf if most is None else most
    begin = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    for text in texts:
        ids = begin + tokenizer.encode(text)
        shown = tokenizer.stream(ids[:1])  # a character may end in the next window
        for first in range(0, len(ids) - 1, size):
            window = ids[first : first + min(size, int(min(left, size))) + 1]
            yield window, sum(len(shown.push(token).encode("utf-8")) for token in window[1:])
            left -= len(window) - 1
            if left <= 0:
                return


def _quality(name: str, model: Model, windows: Iterator[tuple[list[int], int]], tell: Callable[[str], None]) -> Quality:
    total, n_tokens, n_bytes, start, told = 0.0, 0, 0, time.perf_counter(), time.perf_counter()
    for window, size in windows:
        total += _loss(model.decoder, torch.tensor([window], device=model.decoder.device))
        n_tokens, n_bytes = n_tokens + len(window) - 1, n_bytes + size
        if time.perf_counter() - told > 2:
            told = time.perf_counter()
            tell(f"{name}: {n_tokens:,} tokens, loss {total / n_tokens:.4f}, {n_tokens / (told - start):,.0f} tokens/s")
    if not n_tokens:
        raise DataError("the text has no token to predict", hint="give a longer text")
    loss = total / n_tokens
    perplexity = math.exp(loss) if loss < 700 else math.inf
    bits = total / math.log(2) / max(1, n_bytes)
    return Quality(name, loss, perplexity, bits, n_tokens, n_bytes, time.perf_counter() - start)


@torch.inference_mode()
def _loss(decoder: Decoder, ids: Tensor) -> float:
    """Summed over all tokens of (1, T + 1) but the first."""
    inputs, targets = ids[:, :-1], ids[0, 1:]
    features = decoder.features(inputs, cache=decoder.make_cache(1, inputs.shape[1]))[0]  # (T, D)
    step = max(1, LOGITS_AT_ONCE // decoder.vocab_size)
    parts = zip(torch.split(features, step), torch.split(targets, step), strict=True)
    return sum(F.cross_entropy(decoder.head(x).float(), y, reduction="sum").item() for x, y in parts)
