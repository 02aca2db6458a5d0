"""What is measured: the decoder of a model or run directory, or of a spec with its weights drawn at random."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lamina.core.build import as_dtype, build, build_part, working_device
from lamina.core.component import Part
from lamina.core.decoder import Decoder
from lamina.core.errors import LaminaError
from lamina.core.model import Model, load
from lamina.core.resolve import resolve, resolve_part
from lamina.core.resolved import ResolvedSpec
from lamina.core.spec import load_spec


@dataclass(frozen=True, eq=False)
class Subject:
    """A decoder ready to be measured, and how it came to be."""

    decoder: Decoder
    spec: ResolvedSpec
    settings: dict[str, Any]  # what a reader of the figures must know
    seconds: float  # to read or draw its weights and prepare it

    def check_context(self, n_tokens: int, what: str) -> None:
        room = self.decoder.context_length
        if n_tokens > room:
            raise LaminaError(
                f"{what} need a context of {n_tokens}, but {self.settings['model']} holds {room}",
                hint="ask for fewer, or take a model with a longer context_length",
            )

    def random_ids(self, batch: int, length: int) -> Tensor:
        """(B, length) int64. What the tokens are makes no difference to the time, save to which experts are chosen."""
        ids = torch.randint(self.decoder.vocab_size, (batch, length), generator=torch.Generator().manual_seed(0))
        return ids.to(self.decoder.device)


def open_subject(
    model: str | Path | Model,
    *,
    overrides: Mapping[str, Any] | None = None,
    dtype: str | torch.dtype = "float32",
    device: str | torch.device = "cpu",
    backend: str | dict[str, Any] | Part = "eager",
    training: bool = False,
) -> Subject:
    """Read a model directory (or a run's newest checkpoint), or build the decoder of a spec file or shipped spec.

    A model already loaded is copied. For training the weights are float32, whatever precision the products have.
    """
    dtype, device, start = as_dtype(dtype), working_device(device), time.perf_counter()
    weights = torch.float32 if training else dtype
    if training:
        check_training(dtype)
    random = not isinstance(model, Model) and not Path(model).is_dir()
    if overrides and not random:
        raise LaminaError("--set changes a spec; the weights of a model fit no other than its own")
    if isinstance(model, Model):
        decoder, spec = copy.deepcopy(model.decoder).to(device=device, dtype=weights), model.spec
    elif not random:
        loaded = load(model, dtype=weights, device=device)
        decoder, spec = loaded.decoder, loaded.spec
    else:
        spec = resolve(load_spec(model, overrides))
        decoder = build(spec, dtype=weights, device=device)
    part = resolve_part("backend", backend, spec.registry)
    decoder = build_part(part).prepare(decoder.train(training), training=training)
    settings = {
        "model": spec.name if isinstance(model, Model) else str(model),
        "weights": "random" if random else "the model's own",
        "overrides": dict(overrides or {}),
        "dtype": short_name(dtype),
        "device": str(decoder.device),
        "backend": part.dump(),
        "threads": torch.get_num_threads(),
        "lamina": version("lamina"),
        "torch": torch.__version__,
    }
    return Subject(decoder, spec, settings, time.perf_counter() - start)


def check_training(dtype: torch.dtype) -> None:
    if dtype not in (torch.float32, torch.bfloat16):
        raise LaminaError(f"training has no dtype {short_name(dtype)}", hint="use float32 or bfloat16")


def at_least(value: int, least: int, what: str) -> None:
    if value < least:
        raise LaminaError(f"{what} must be a whole number from {least}, not {value}")


def short_name(dtype: torch.dtype) -> str:
    """torch.float32 -> 'float32'"""
    return str(dtype).removeprefix("torch.")
