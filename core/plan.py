"""Which tensors of a checkpoint make which of a decoder: what a family declares, held against what is there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from lamina.core.build import build
from lamina.core.checkpoint import Stored
from lamina.core.family import Family
from lamina.core.layout import Layout, Move
from lamina.core.resolved import ResolvedSpec

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Step:
    """Tensors that are read together and written together."""

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    layout: Layout
    shapes: tuple[tuple[int, ...], ...]  # of theirs


@dataclass
class Plan:
    """All steps, and what stands in their way."""

    steps: list[Step]
    problems: list[str]
    names: dict[str, str]  # a family's name -> the checkpoint's, where it differs


def decoder_tensors(spec: ResolvedSpec) -> dict[str, Tensor]:
    """The decoder's tensors, without their values."""
    return build(spec, device="meta", initialise=False).tensors()


def plan(
    family: Family, spec: ResolvedSpec, tensors: Mapping[str, Tensor], stored: Mapping[str, Stored] | None = None
) -> Plan:
    """How a checkpoint with the tensors `stored` becomes a decoder's; without them, what an export writes."""
    names = _spelled(family, stored) if stored is not None else {}
    present = None if stored is None else {names.get(name, name) for name in stored}
    made = Plan([], [], {theirs: name for name, theirs in names.items()})
    for moves in _chosen(family, spec, tensors, present):
        for ours, theirs, layout in moves.expand(tensors):
            try:
                shapes = tuple(tuple(t.shape) for t in layout.theirs([tensors[name].to("meta") for name in ours]))
            except RuntimeError as error:
                made.problems.append(f"{', '.join(ours)}: its layout does not fit ({str(error).splitlines()[0]})")
                continue
            made.steps.append(Step(ours, theirs, layout, shapes))
    covered = [name for step in made.steps for name in step.ours]
    made.problems += [
        f"family: says nothing of the decoder's '{name}'" for name in sorted(tensors.keys() - set(covered))
    ]
    made.problems += [
        f"family: moves to '{name}' twice" for name in sorted({n for n in covered if covered.count(n) > 1})
    ]
    if stored is not None and present is not None:
        _compare(family, made, stored, present)
    return made


def _chosen(
    family: Family, spec: ResolvedSpec, tensors: Mapping[str, Tensor], present: set[str] | None
) -> Iterable[Move]:
    for item in family.moves(spec):
        if isinstance(item, Move):
            yield item
            continue
        way = next((way for way in item.ways if present is None or _all_there(way, tensors, present)), item.ways[0])
        yield from way


def _all_there(way: Iterable[Move], tensors: Mapping[str, Tensor], present: set[str]) -> bool:
    first = next((found for move in way for found in move.expand(tensors)), None)
    return first is not None and set(first[1]) <= present


def _spelled(family: Family, stored: Mapping[str, Stored]) -> dict[str, str]:
    """The checkpoint's names -> the family's, for a checkpoint of the model without its head."""
    prefix = family.base_prefix
    if not prefix or any(name.startswith(prefix) for name in stored):
        return {}
    return {name: prefix + name for name in stored}


def _compare(family: Family, made: Plan, stored: Mapping[str, Stored], present: set[str]) -> None:
    wanted = {name for step in made.steps for name in step.theirs}
    if family.base_prefix:  # a head stands beside the bare model, and has no prefix
        for name in [name for name in wanted if name in stored and name not in present]:
            present.add(name)
            made.names[name] = name
            present.discard(family.base_prefix + name)
    made.problems += [f"missing: {name}" for name in sorted(wanted - present)]
    for name in sorted(present - wanted):
        found = made.names.get(name, name)
        if not any(fnmatchcase(name, pattern) or fnmatchcase(found, pattern) for pattern in family.ignored_tensors):
            made.problems.append(f"not used: {found}")
    for step in made.steps:
        for name, shape in zip(step.theirs, step.shapes, strict=True):
            if name in present and (found_shape := stored[made.names.get(name, name)].shape) != shape:
                made.problems.append(f"{name}: {list(found_shape)} in the checkpoint, {list(shape)} by its config")


def result_dtypes(step: Step, dtypes: list[torch.dtype]) -> torch.dtype:
    """What the tensors of a step are kept in: the widest, where the parts differ."""
    made = dtypes[0]
    for dtype in dtypes[1:]:
        made = torch.promote_types(made, dtype)
    return made
