"""Counts what a decoder holds and does, from the real modules on the meta device: no formula is kept a second time.

FLOPs are those of the matrix products, two for each multiply-add; masked scores count, because the kernels are asked
for them. Training memory is that of float32, in which weights, gradients and optimizer state are kept. Of a mixture of
experts nobody knows beforehand where tokens will go: its activations are those of one expert taking all of them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from lamina.core.build import as_dtype, build, build_part
from lamina.core.component import Part
from lamina.core.data import Batch
from lamina.core.decoder import Decoder
from lamina.core.describe import describe_block
from lamina.core.dryrun import dry_run
from lamina.core.errors import LaminaError
from lamina.core.meters import Flops, FusedAttention, PeakMemory, SavedTensors
from lamina.core.report import CacheCost, LayerGroup, Memory, Report
from lamina.core.resolved import ResolvedSpec
from lamina.core.train import token_losses

Figure = TypeVar("Figure")


def account(
    spec: ResolvedSpec, *, batch: int = 1, context: int | None = None, dtype: str | torch.dtype = "bfloat16"
) -> Report:
    """Everything countable of the decoder that `spec` describes. Raises SpecError when its parts do not fit.

    `context` (the spec's own by default) and `batch` are what FLOPs and memory are for, `dtype` what inference runs in.
    """
    length = spec.context_length if context is None else context
    return _Accountant(spec, dry_run(spec).decoder, batch, length, as_dtype(dtype)).report()


class _Accountant:
    def __init__(self, spec: ResolvedSpec, decoder: Decoder, batch: int, context: int, dtype: torch.dtype) -> None:
        self.spec, self.batch, self.context, self.dtype = spec, batch, context, dtype
        self.decoder = decoder  # in float32
        self.serving = build(spec, device="meta", dtype=dtype).eval()
        self.notes: list[str] = []

    def report(self) -> Report:
        spec, decoder = self.spec, self.decoder
        forward, training = self.attempt("FLOPs", self.flops) or (None, None)
        cache = self.attempt("the cache", self.cache)
        return Report(
            name=spec.name,
            n_layers=len(decoder.layers),
            context=self.context,
            batch=self.batch,
            dtype=str(self.dtype).removeprefix("torch."),
            layers=self.layers(),
            parameters=parameters_by_kind(decoder),
            total=_numel(decoder),
            active=self.attempt("active parameters", lambda: active_parameters(decoder)),
            flops_forward=forward,
            flops_training=training,
            cache=cache,
            inference=Memory(
                {
                    "weights": _nbytes(self.serving),
                    "cache": cache.total if cache is not None else None,
                    "activations": self.attempt("activations of inference", self.serving_peak),
                }
            ),
            training=Memory(
                {
                    "weights": _nbytes(decoder),
                    "gradients": sum(p.nbytes for p in decoder.parameters() if p.requires_grad),
                    "optimizer": self.attempt("optimizer state", self.optimizer_state),
                    "activations": self.attempt("activations of training", self.activations),
                }
            ),
            tied=decoder.head.weight is decoder.embedding.tokens.weight,
            notes=self.notes,
        )

    def attempt(self, what: str, measure: Callable[[], Figure]) -> Figure | None:
        """The figure, or None and a note: a part that cannot be measured must not be given a wrong number."""
        try:
            return measure()
        except LaminaError:
            raise
        except Exception as error:
            said = str(error).splitlines()[0] if str(error) else type(error).__name__
            self.notes.append(f"{what}: unknown ({said})")
            return None

    def layers(self) -> list[LayerGroup]:
        groups: dict[tuple[str, int], list[int]] = {}
        for index, (name, layer) in enumerate(zip(self.spec.layers.names, self.decoder.layers, strict=True)):
            groups.setdefault((name, _numel(layer)), []).append(index)
        return [
            LayerGroup(tuple(found), name, describe_block(self.spec.blocks[name], self.spec), parameters)
            for (name, parameters), found in groups.items()
        ]

    def flops(self) -> tuple[int, int] | None:
        """Forward, and forward with backward, per token."""
        with Flops() as forward:
            context = self.decoder.train().context(_token_ids(1, self.context))
            logits = self.decoder.head(self.decoder.run(context))  # all at once: in shares, backward mixes with forward
            loss = logits.sum() + sum(context.losses.values())
        with Flops() as backward:
            loss.backward()
        self.decoder.zero_grad()
        if uncounted := sorted({*forward.uncounted, *backward.uncounted}):
            self.notes.append(f"FLOPs: unknown (nobody says what {', '.join(uncounted)} costs)")
            return None
        return forward.total // self.context, (forward.total + backward.total) // self.context

    def loss(self, batch: int) -> Tensor:
        """A training pass: next-token loss and what the layers add to it."""
        token_ids = _token_ids(batch, self.context)
        loss, extra = token_losses(self.decoder.train(), Batch(token_ids, token_ids, None))
        return loss + sum(extra.values())

    def activations(self) -> int:
        with FusedAttention(), SavedTensors(self.decoder.tensors().values()) as saved:
            loss = self.loss(self.batch)
            found = saved.nbytes
        del loss  # it held the graph
        return found

    def serving_peak(self) -> int:
        """What a prompt of the whole context, read at once, holds at most besides weights and cache."""
        decoder = self.serving
        cache = decoder.make_cache(self.batch, self.context)
        held = [tensor for state in cache.layers if state is not None for tensor in state.tensors()]
        memory = PeakMemory([*decoder.tensors().values(), *held])
        with torch.no_grad(), FusedAttention(), memory:
            decoder.head(decoder.features(_token_ids(self.batch, self.context), cache=cache)[:, -1:])
        return memory.peak

    def cache(self) -> CacheCost:
        def held(batch: int, length: int) -> int:
            return self.serving.make_cache(batch, length).nbytes

        return CacheCost(
            per_token=held(1, 2) - held(1, 1),
            per_token_at_context=held(1, self.context + 1) - held(1, self.context),
            total=held(self.batch, self.context),
        )

    def optimizer_state(self) -> int:
        """Let the spec's optimizer take a step and see what it keeps, for one of each kind of parameter."""
        alike: Counter[tuple[str, torch.Size]] = Counter()
        first: dict[tuple[str, torch.Size], tuple[str, nn.Parameter]] = {}
        for name, parameter in self.decoder.named_parameters():
            if parameter.requires_grad:
                key = (re.sub(r"\d+", "*", name), parameter.shape)
                alike[key] += 1
                first.setdefault(key, (name, parameter))
        for _, parameter in first.values():
            parameter.grad = torch.empty_like(parameter)
        optimizer = build_part(self.spec.train.optimizer).make(first.values(), 1e-3)
        optimizer.step()
        self.decoder.zero_grad()
        total = 0
        for key, (_, parameter) in first.items():
            kept = optimizer.state[parameter].values() if parameter in optimizer.state else ()
            total += alike[key] * sum(value.nbytes for value in kept if isinstance(value, Tensor))
        return total


def parameters_by_kind(decoder: Decoder) -> dict[str, int]:
    """Parameters by the kind of the innermost part that owns them; a tied head owns none. Most first."""
    owners = {name: part.kind for name, module in decoder.named_modules() if isinstance(part := _part(module), Part)}
    found: Counter[str] = Counter()
    for name, parameter in decoder.named_parameters():
        path = name.split(".")
        above = (".".join(path[:depth]) for depth in range(len(path) - 1, 0, -1))
        found[next((owners[prefix] for prefix in above if prefix in owners), path[0])] += parameter.numel()
    return dict(found.most_common())


def active_parameters(decoder: Decoder) -> int:
    """Parameters that take part in the work for one token: all but those of experts not chosen, the embedding's and
    the head's among them."""
    idle = {id(ffn): _numel(ffn) - ffn.active_parameters() for block in decoder.blocks if (ffn := block.ffn)}
    return _numel(decoder) - sum(idle.values())


def _part(module: nn.Module) -> object:
    return vars(module).get("part")


def _numel(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _nbytes(decoder: Decoder) -> int:
    return sum(tensor.nbytes for tensor in decoder.tensors().values())


def _token_ids(batch: int, length: int) -> Tensor:
    return torch.zeros(batch, length, dtype=torch.int64, device="meta")
