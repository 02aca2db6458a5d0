"""How fast a decoder generates and trains, from outside: wall clock of whole runs, their medians."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any, cast

import torch
from torch import Tensor

from lamina.core.build import as_dtype, build_part
from lamina.core.component import Part
from lamina.core.data import Batch
from lamina.core.decoder import Decoder
from lamina.core.decoding import Decoding, Request
from lamina.core.errors import LaminaError
from lamina.core.figures import Bench
from lamina.core.generate import DecoderStep
from lamina.core.heap import reused_memory
from lamina.core.loss import head_losses
from lamina.core.machine import clock, peak_memory
from lamina.core.model import Model
from lamina.core.optimizer import Optimizer
from lamina.core.resolve import resolve_part
from lamina.core.subject import Subject, at_least, open_subject, short_name
from lamina.core.train import autocast, train_step, update

PROMPT_TOKENS = 512
WARMUP_STEPS = 2  # the first makes the optimizer's state


def bench_generation(
    model: str | Path | Model,
    *,
    overrides: Mapping[str, Any] | None = None,
    prompt_tokens: int | None = None,
    new_tokens: int = 64,
    batch: int = 1,
    dtype: str = "float32",
    device: str = "cpu",
    backend: str | dict[str, Any] | Part = "eager",
    ragged: bool = False,
    repeat: int = 3,
) -> Bench:
    """Greedy generation from random prompts, by the loop and the cache that `generate` uses; nothing ends a row early.

    Prompts have `prompt_tokens` tokens, 512 or what the context leaves room for when None; with `ragged` they have
    from a quarter of that to all of it, evenly spread, and padding counts for nothing. The time to first token covers
    the cache's allocation, the prompts and the choice; prefill is all prompt tokens over that time, decode all other
    tokens over the time left. A run of the same size goes first, its time is `warmup_s`.
    """
    for value, least, what in ((batch, 1, "batch"), (new_tokens, 2, "new_tokens"), (repeat, 1, "repeat")):
        at_least(value, least, what)
    if prompt_tokens is not None:
        at_least(prompt_tokens, 1, "prompt_tokens")
    if ragged and batch == 1:
        raise LaminaError("a batch of one has no prompts of different lengths", hint="give a larger --batch")
    subject = open_subject(model, overrides=overrides, dtype=dtype, device=device, backend=backend)
    decoder = subject.decoder
    if prompt_tokens is None:
        prompt_tokens = max(1, min(PROMPT_TOKENS, decoder.context_length - new_tokens))
    subject.check_context(
        prompt_tokens + new_tokens, f"prompts of {prompt_tokens} tokens and {new_tokens} new ones each"
    )
    lengths = prompt_lengths(prompt_tokens, batch, ragged)
    request = Request(
        subject.random_ids(batch, prompt_tokens), torch.tensor(lengths, device=decoder.device), new_tokens
    )
    strategy = cast(Decoding, build_part(resolve_part("decoding", "greedy", subject.spec.registry.ours)))
    warmup = sum(_generate(decoder, strategy, request))
    runs = [_generate(decoder, strategy, request) for _ in range(repeat)]
    first, rest = median(first for first, _ in runs), median(rest for _, rest in runs)
    figures: dict[str, float | int | None] = {
        "prefill_tokens_per_second": sum(lengths) / first,
        "decode_tokens_per_second": batch * (new_tokens - 1) / rest,
        "time_to_first_token_s": first,
        "load_s": subject.seconds,
        "warmup_s": warmup,
        "peak_rss_bytes": peak_memory(),
    }
    settings = {
        **subject.settings,
        "prompt_tokens": prompt_tokens,
        "new_tokens": new_tokens,
        "batch": batch,
        "ragged": ragged,
        "prompt_lengths": lengths,
        "total_prompt_tokens": sum(lengths),
        "total_new_tokens": batch * new_tokens,
        "repeat": repeat,
    }
    return Bench(figures, settings)


def prompt_lengths(prompt_tokens: int, batch: int, ragged: bool) -> list[int]:
    """Real tokens in each row."""
    if not ragged:
        return [prompt_tokens] * batch
    least = max(1, prompt_tokens // 4)
    return [round(least + (prompt_tokens - least) * row / (batch - 1)) for row in range(batch)]


@torch.inference_mode()
def _generate(decoder: Decoder, strategy: Decoding, request: Request) -> tuple[float, float]:
    """Seconds to the first token of every row, and from there to the last."""
    now = clock(decoder.device)
    start = now()
    tokens = strategy.decode(DecoderStep(decoder, request.max_new_tokens), request)
    next(tokens)
    first = now()
    for _ in tokens:
        pass
    return first - start, now() - first


def bench_training(
    model: str | Path | Model,
    *,
    overrides: Mapping[str, Any] | None = None,
    batch: int = 8,
    context: int | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    backend: str | dict[str, Any] | Part = "eager",
    steps: int = 10,
) -> Bench:
    """Training steps on random tokens, each a whole `train_step` with the spec's clip and optimizer.

    The first two steps are not counted; their time is `warmup_s`. Tokens a second come from the median step.
    """
    at_least(batch, 1, "batch")
    at_least(steps, 1, "steps")
    subject = open_subject(model, overrides=overrides, dtype=dtype, device=device, backend=backend, training=True)
    if context is None:
        context = subject.decoder.context_length
    at_least(context, 1, "context")
    subject.check_context(context, f"texts of {context} tokens")
    training = Training(subject, batch, context, as_dtype(dtype))
    now = clock(subject.decoder.device)
    seconds = []
    with reused_memory():
        for _ in range(WARMUP_STEPS + steps):
            start = now()
            training.step()
            seconds.append(now() - start)
    figures: dict[str, float | int | None] = {
        "train_tokens_per_second": batch * context / median(seconds[WARMUP_STEPS:]),
        "step_s": median(seconds[WARMUP_STEPS:]),
        "load_s": subject.seconds,
        "warmup_s": sum(seconds[:WARMUP_STEPS]),
        "peak_rss_bytes": peak_memory(),
    }
    settings = {"batch": batch, "context": context, "steps": steps, "optimizer": training.config.optimizer.dump()}
    return Bench(figures, {**subject.settings, **settings})


class Training:
    """Training of a subject on one random batch, as its spec would have it. The learning rate is zero: the work without
    the effect."""

    def __init__(self, subject: Subject, batch: int, context: int, dtype: torch.dtype) -> None:
        self.decoder = subject.decoder
        self.config = subject.spec.train.model_copy(update={"dtype": short_name(dtype), "accumulate": 1})
        ids = subject.random_ids(batch, context + 1)
        self.batch = Batch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), None)
        optimizer = cast(Optimizer, build_part(self.config.optimizer))
        self.optimizer = optimizer.make(self.decoder.named_parameters(), 0.0)

    def step(self) -> None:
        train_step(self.decoder, self.optimizer, self.batch, self.config)

    def forward(self, watch: Callable[[str, Callable[[], Tensor]], Tensor] = lambda name, run: run()) -> Tensor:
        """The loss; its own share of the work goes through `watch`."""
        with autocast(self.decoder.device, self.config.dtype):
            context = self.decoder.context(self.batch.token_ids)
            x = self.decoder.run(context)
            summed = watch("loss", lambda: head_losses(self.decoder.head, x, self.batch, self.decoder.vocab_size))
            loss = summed / self.batch.targets.numel()
        return loss + sum(context.losses.values())

    def update(self) -> None:
        update(self.decoder, self.optimizer, self.config.clip)
