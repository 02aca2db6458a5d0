"""Where a decoder's time goes, part by part, and how far it is from what the machine could do.

Times are medians over rounds, each of a plain pass and a watched one (see `watch`). A plain pass gives the time; the
watched ones only say how it divides, since watching costs a little. FLOPs are those of matrix products, counted by
torch on the meta device where the decoder runs without content; what a mask hides counts. Where the loss is formed a
share of the rows at a time, its part of the backward pass stands in the forward pass, under "loss".
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from lamina.core.bench import Training
from lamina.core.build import as_dtype, build
from lamina.core.cache import Cache
from lamina.core.component import Part
from lamina.core.data import Batch
from lamina.core.decoder import Decoder
from lamina.core.errors import LaminaError
from lamina.core.ffn import FFN
from lamina.core.figures import Phase, Profile
from lamina.core.heap import reused_memory
from lamina.core.machine import clock, matmul_peak, peak_memory, read_peak
from lamina.core.meters import Flops
from lamina.core.model import Model
from lamina.core.module import Embedding
from lamina.core.quantised import QuantisedLinear
from lamina.core.resolved import ResolvedSpec
from lamina.core.subject import at_least, check_training, open_subject
from lamina.core.train import token_losses
from lamina.core.watch import Watch

CONTEXT = 256
NEW_TOKENS = 16  # decoded in one pass
PHASES = ("prefill", "decode", "forward", "backward", "update")


def profile(
    model: str | Path | Model,
    *,
    overrides: Mapping[str, Any] | None = None,
    batch: int = 1,
    context: int | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    backend: str | dict[str, Any] | Part = "eager",
    seconds: float = 10.0,
    training: bool = True,
) -> Profile:
    """Time the eager decoder of a model directory, or of a spec with random weights, for about `seconds`.

    Inference: a prompt and up to 16 more tokens that fill `context` (256 or the decoder's, when None). Training, unless
    switched off: texts of `context` tokens, forward with the loss, backward, and clip with the optimizer; bfloat16 is
    autocast.
    """
    at_least(batch, 1, "batch")
    if not 0 <= seconds < math.inf:
        raise LaminaError(f"seconds must be a number from 0, not {seconds}")
    precision = as_dtype(dtype)
    if training:
        check_training(precision)
    started = time.perf_counter()
    subject = open_subject(model, overrides=overrides, dtype=dtype, device=device, backend=backend)
    if training and any(isinstance(module, QuantisedLinear) for module in subject.decoder.modules()):
        raise LaminaError("rounded weights cannot be trained", hint="profile with --no-training, or another backend")
    decoder = subject.decoder
    if context is None:
        context = min(CONTEXT, decoder.context_length)
    at_least(context, 2, "context")
    subject.check_context(context, f"texts of {context} tokens")
    new_tokens = min(NEW_TOKENS, context // 2)
    prompt_tokens = context - new_tokens
    peaks = matmul_peak(precision, decoder.device), read_peak(decoder.device)
    counted = count_flops(subject.spec, batch, prompt_tokens, prompt_tokens + new_tokens // 2, context, training)

    spent = time.perf_counter() - started  # loading is not limited, but it eats into what is left for measuring
    left = max(seconds - spent, 0.0) / (2 if training else 1)
    inference = _Inference(decoder, subject.random_ids(batch, prompt_tokens), new_tokens)
    found = _rounds(inference.plain, inference.watched, left)
    rounds, memory = {"inference": found.rounds}, {"inference": peak_memory()}
    times, shares = found.times, found.shares
    tokens = {"prefill": batch * prompt_tokens, "decode": batch}
    weight_bytes, cache_bytes = read_bytes(decoder, batch), visible_bytes(inference.cache)
    del inference  # training needs the room
    if training:
        decoder.float().train()
        steps = _Steps(Training(subject, batch, context, precision))
        with reused_memory():
            found = _rounds(steps.plain, steps.watched, left)
        rounds["training"], memory["training"] = found.rounds, peak_memory()
        times, shares = times | found.times, shares | found.shares
        tokens |= dict.fromkeys(("forward", "backward", "update"), batch * context)
    return Profile(
        phases={
            name: Phase(name, times[name], tokens[name], counted[name], shares.get(name, {}))
            for name in PHASES
            if name in times
        },
        time_to_first_token=times["first token"],
        weight_bytes=weight_bytes,
        cache_bytes=cache_bytes,
        peak_memory=memory,
        matmul_peak=peaks[0],
        read_peak=peaks[1],
        rounds=rounds,
        settings={
            **subject.settings,
            "batch": batch,
            "context": context,
            "prompt_tokens": prompt_tokens,
            "new_tokens": new_tokens,
        },
    )


Times = dict[str, float]  # seconds by phase
Divided = dict[str, dict[str, float]]  # seconds by part, by phase


@dataclass(frozen=True)
class _Found:
    times: Times
    shares: Divided
    rounds: int


def _rounds(plain: Callable[[], Times], watched: Callable[[], Divided], seconds: float) -> _Found:
    """Medians over as many rounds as `seconds` allow, one at least, after one that warms up."""
    end = time.perf_counter() + seconds
    plain()
    times: list[Times] = []
    parts: list[Divided] = []
    while not times or time.perf_counter() < end:
        times.append(plain())
        parts.append(watched())
    shares: Divided = {}
    for phase, of_phase in parts[0].items():
        middle = {part: median(found[phase][part] for found in parts) for part in of_phase}
        whole = sum(middle.values())
        shares[phase] = {part: part_seconds / whole for part, part_seconds in middle.items()}
    return _Found({phase: median(found[phase] for found in times) for phase in times[0]}, shares, len(times))


class _Inference:
    """A prompt, then tokens one at a time."""

    def __init__(self, decoder: Decoder, token_ids: Tensor, new_tokens: int) -> None:
        self.decoder, self.token_ids, self.new_tokens = decoder, token_ids, new_tokens
        self.watch, self.now = Watch(decoder), clock(decoder.device)
        self.cache: Cache

    @torch.inference_mode()
    def plain(self) -> Times:
        start = self.now()
        self.start()
        prefilling = self.now()
        token = self.prefill()
        first = self.now()
        for _ in range(self.new_tokens):
            token = self.decode(token)
        end = self.now()
        return {
            "prefill": first - prefilling,
            "first token": first - start,
            "decode": (end - first) / self.new_tokens,
        }

    @torch.inference_mode()
    def watched(self) -> Divided:
        self.start()
        with self.watch.watching():
            token, prefill = self.watch.take(self.prefill)
            decode = dict.fromkeys(prefill, 0.0)
            for _ in range(self.new_tokens):
                token, found = self.watch.take(functools.partial(self.decode, token))
                decode = {part: decode[part] + found[part] for part in decode}
        return {"prefill": prefill, "decode": decode}

    def start(self) -> None:
        batch, length = self.token_ids.shape
        self.cache = self.decoder.make_cache(batch, length + self.new_tokens)

    def prefill(self) -> Tensor:
        """The next token of every row, (B, 1)."""
        x = self.decoder.features(self.token_ids, cache=self.cache)  # (B, T, D)
        logits: Tensor = self.decoder.head(x[:, -1:])
        return logits.argmax(-1)

    def decode(self, token_ids: Tensor) -> Tensor:
        logits: Tensor = self.decoder(token_ids, cache=self.cache)
        return logits.argmax(-1)


class _Steps:
    """Training steps, phase by phase."""

    def __init__(self, training: Training) -> None:
        self.training = training
        self.watch, self.now = Watch(training.decoder), clock(training.decoder.device)

    def plain(self) -> Times:
        start = self.now()
        loss = self.training.forward()
        forward = self.now()
        loss.backward()  # type: ignore[no-untyped-call]
        backward = self.now()
        self.training.update()
        return {"forward": forward - start, "backward": backward - forward, "update": self.now() - backward}

    def watched(self) -> Divided:
        with self.watch.watching():
            loss, of_forward = self.watch.take(lambda: self.training.forward(self.watch.part))
            of_backward = self.watch.backward(loss)
        self.training.update()
        return {"forward": of_forward, "backward": of_backward}


def count_flops(
    spec: ResolvedSpec, batch: int, prompt_tokens: int, decode_at: int, context: int, training: bool
) -> dict[str, int | None]:
    """FLOPs of every phase: prefill of a prompt, decode of the token at `decode_at`, forward and backward of texts."""
    decoder = build(spec, device="meta")
    found: dict[str, int | None] = {**dict.fromkeys(PHASES), "update": 0}

    def ids(length: int) -> Tensor:
        return torch.zeros(batch, length, dtype=torch.int64, device="meta")

    def measure(phase: str, run: Callable[[], Any]) -> Any:
        with Flops() as flops:
            result = run()
        found[phase] = None if flops.uncounted else flops.total
        return result

    try:
        with torch.no_grad():
            decoder.eval()
            cache = decoder.make_cache(batch, decode_at)
            measure("prefill", lambda: decoder.head(decoder.features(ids(prompt_tokens), cache=cache)[:, -1:]))
            if decode_at - 1 > prompt_tokens:
                decoder.features(ids(decode_at - 1 - prompt_tokens), cache=cache)
            measure("decode", lambda: decoder(ids(1), cache=cache))
        if training:
            texts = Batch(ids(context), ids(context), None)
            loss = measure("forward", lambda: token_losses(decoder.train(), texts)[0])
            measure("backward", loss.backward)
    except (NotImplementedError, RuntimeError):  # no meta kernel, or a look at a value; what is broken fails when timed
        pass
    return found


def read_bytes(decoder: Decoder, batch: int) -> int:
    """Bytes of weights read to decode one token in every row: all of them once, of embeddings the rows looked up, of
    a mixture's experts those of one token (more in a batch whose tokens choose differently)."""
    total = sum(parameter.nbytes for parameter in decoder.parameters())
    total += sum(module.quantised.nbytes for module in decoder.modules() if isinstance(module, QuantisedLinear))
    by_row = isinstance(decoder.head.product, QuantisedLinear)  # the head has weights of its own
    for module in decoder.modules():
        if isinstance(module, Embedding) and (by_row or module.weight is not decoder.head.weight):
            total -= max(0, module.weight.shape[0] - batch) * module.weight[0].nbytes
    for block in decoder.blocks:
        if isinstance(block.ffn, FFN):
            held = sum(parameter.numel() for parameter in block.ffn.parameters())
            stored = sum(parameter.nbytes for parameter in block.ffn.parameters())
            total -= stored * (held - block.ffn.active_parameters()) // max(held, 1)
    return total


def visible_bytes(cache: Cache) -> int:
    """Bytes of the cache that hold something."""
    total = 0
    for state in cache.layers:
        if state is None:
            continue
        streams = sum(stream.nbytes for stream in state.streams.values())
        total += streams * min(cache.used, state.capacity) // max(state.capacity, 1)
        total += sum(register.nbytes for register in state.registers.values())
    return total
