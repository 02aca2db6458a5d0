"""Runs a spec's decoder on the meta device, where tensors have shapes and no content: what does not fit shows for free.

A part that fails is named with its line in the spec. What cannot run there (a kernel without a meta version, a branch
on a tensor's value) is no mistake of the spec's: the run ends early and `DryRun.unchecked` says why.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from lamina.core.build import build
from lamina.core.component import Part
from lamina.core.decoder import Decoder
from lamina.core.errors import LaminaError, SpecError
from lamina.core.meta import QuickShapes
from lamina.core.module import ModuleComponent
from lamina.core.position import Position
from lamina.core.resolved import ResolvedSpec

LENGTH = 5  # tokens: more than any small number a shape is likely to match by accident


@dataclass(frozen=True)
class DryRun:
    """A decoder on the meta device that has run there, as far as it could."""

    decoder: Decoder
    parameters: int
    unchecked: str | None = None  # why the run ended early


def dry_run(spec: ResolvedSpec) -> DryRun:
    """Build and run on the meta device: a pass in training, then two cached ones. Raises SpecError."""
    with QuickShapes():  # type: ignore[no-untyped-call]
        return _dry_run(spec)


def _dry_run(spec: ResolvedSpec) -> DryRun:
    decoder = build(spec, device="meta")
    parameters = sum(parameter.numel() for parameter in decoder.parameters())
    checks = [check for module in decoder.modules() if isinstance(module, ModuleComponent) for check in _watch(module)]
    try:
        _run(decoder, spec)
    except Exception as error:
        part = _running(error.__traceback__)
        who = f"{part.kind} '{part.name}'" if part is not None else "the decoder"
        if _needs_values(error):
            return DryRun(decoder, parameters, f"{who} cannot run on the meta device: {_first_line(error)}")
        if part is None and not isinstance(error, LaminaError):
            raise  # none of the spec's parts was running: the mistake is lamina's
        where = spec.location(part.path) if part is not None else None
        message = error.message if isinstance(error, LaminaError) else _first_line(error)
        kind = "" if isinstance(error, (LaminaError, RuntimeError)) else f"{type(error).__name__}: "
        raise SpecError(f"{who} fails in a pass of {LENGTH} tokens: {kind}{message}", where=where) from error
    finally:
        for undo in checks:
            undo()
    return DryRun(decoder, parameters)


def _run(decoder: Decoder, spec: ResolvedSpec) -> None:
    length = min(LENGTH, spec.context_length)
    token_ids = torch.zeros(2, length, dtype=torch.int64, device="meta")
    with torch.no_grad():
        decoder.train()
        decoder(token_ids)
        decoder.eval()
        cache = decoder.make_cache(2, length)
        cut = length - 1 if decoder.lookahead < length else length  # tokens that see one another come in one call
        for start, end in ((0, cut), (cut, length)):
            if end > start:
                decoder(token_ids[:, start:end], cache=cache)


class _WrongShape(LaminaError):
    """A part gave a tensor of another shape than its kind promises."""


def _watch(module: ModuleComponent) -> list[Callable[[], None]]:
    """Check shapes that a kind promises, for as long as nothing that is returned has been called."""
    undo: list[Callable[[], None]] = []
    if module.keeps_shape:

        def check(module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
            assert isinstance(module, ModuleComponent)
            _same_shape(module, args[0], out)

        undo.append(module.register_forward_hook(check).remove)
    if isinstance(module, Position):
        # A position is called by its hooks' names and never as a module.
        undo += [_wrap(module, "embed"), _wrap(module, "rotate")]
    return undo


def _wrap(position: Position, name: str) -> Callable[[], None]:
    method = getattr(position, name)

    def checked(*args: Any) -> Any:
        out = method(*args)
        for given, returned in zip(args, out if isinstance(out, tuple) else (out,), strict=False):
            _same_shape(position, given, returned)
        return out

    object.__setattr__(position, name, checked)
    return lambda: object.__delattr__(position, name)


def _same_shape(self: ModuleComponent, given: Any, returned: Any) -> None:
    # The first argument is called `self` so that `_running` finds the part in this frame.
    if not isinstance(returned, Tensor):
        raise _WrongShape(f"it returned {type(returned).__name__} where a tensor is due")
    if isinstance(given, Tensor) and returned.shape != given.shape:
        raise _WrongShape(f"it returned the shape {tuple(returned.shape)} where {tuple(given.shape)} is due")


def _running(traceback: TracebackType | None) -> Part | None:
    """The innermost part at work when an exception was raised: its frame's `self` is a component with a `part`."""
    found: Part | None = None
    while traceback is not None:
        owner = traceback.tb_frame.f_locals.get("self")
        part = vars(owner).get("part") if isinstance(owner, ModuleComponent) else None
        found = part if isinstance(part, Part) else found
        traceback = traceback.tb_next
    return found


def _needs_values(error: Exception) -> bool:
    """Whether torch refused for want of content or of a meta kernel, and not because shapes do not fit."""
    return isinstance(error, NotImplementedError) or (isinstance(error, RuntimeError) and "meta tensor" in str(error))


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
