"""Where each value of a resolved spec came from, and what differs between two of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lamina.core.component import ComponentConfig, Part
from lamina.core.describe import describe, describe_block, say
from lamina.core.errors import SpecError, did_you_mean
from lamina.core.reader import KeyPath
from lamina.core.resolved import ResolvedSpec


@dataclass(frozen=True)
class Explained:
    """One value of a spec and where it was written, or what it follows from."""

    path: str
    value: Any
    origin: str

    @property
    def line(self) -> str:
        """In the words of YAML."""
        value = self.value if isinstance(self.value, str) else json.dumps(self.value, ensure_ascii=False)
        return f"{self.path}: {value}"


def explain(spec: ResolvedSpec, path: str = "") -> list[Explained]:
    """Every value of the spec, or those below a dotted path. Raises SpecError when nothing is there."""
    found = [Explained(_dotted(keys), value, _origin(spec, keys)) for keys, value in _leaves(spec.dump(), ())]
    wanted = _dotted(_long(path, spec))
    chosen = [one for one in found if not wanted or one.path == wanted or one.path.startswith(f"{wanted}.")]
    if not chosen:
        prefixes = {".".join(one.path.split(".")[:n]) for one in found for n in range(1, one.path.count(".") + 2)}
        raise SpecError(f"the spec has nothing at '{path}'", hint=did_you_mean(wanted, sorted(prefixes)))
    return chosen


def _leaves(data: Any, path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    if isinstance(data, dict) and data:
        for key, value in data.items():
            if key != "placement" and (path or key != "lamina"):  # the dump's own, which no one wrote
                yield from _leaves(value, (*path, key))
    elif isinstance(data, list) and data and isinstance(data[0], dict):
        for index, value in enumerate(data):
            yield from _leaves(value, (*path, index))
    else:
        yield path, data


def _origin(spec: ResolvedSpec, path: KeyPath) -> str:
    """Of a value, or of the nearest thing above it: a part's name stands where the part does."""
    for depth in range(len(path), 0, -1):
        if (origin := spec.origins.get(path[:depth])) is not None:
            return origin
    return ""


def _long(path: str, spec: ResolvedSpec) -> KeyPath:
    """`block.ffn` is what people write for `blocks.block.ffn`."""
    keys = tuple(key for key in path.split(".") if key)
    return ("blocks", next(iter(spec.blocks)), *keys[1:]) if keys[:1] == ("block",) else keys


def _dotted(path: KeyPath) -> str:
    return ".".join(str(key) for key in path)


@dataclass(frozen=True)
class Change:
    """The same change, at every place of the spec where it was made."""

    paths: tuple[str, ...]
    before: str
    after: str


def differences(a: ResolvedSpec, b: ResolvedSpec) -> list[Change]:
    """What differs between two specs, in words."""
    places: dict[tuple[str, str], list[str]] = {}
    for path, before, after in _differences(a, b, "", (a, b)):
        places.setdefault((before, after), []).append(path)
    return [Change(tuple(paths), before, after) for (before, after), paths in places.items()]


def _differences(a: Any, b: Any, path: str, specs: tuple[ResolvedSpec, ResolvedSpec]) -> Iterator[tuple[str, str, str]]:
    if isinstance(a, Part) and isinstance(b, Part) and a != b:
        same = a.name == b.name
        also = {name for name, value in vars(a.config).items() if same and value != getattr(b.config, name)}
        before, after = describe(a, specs[0], also), describe(b, specs[1], also)
        if before != after:  # else they differ in what follows from sizes alone, and those are told elsewhere
            yield path, before, after
    elif isinstance(a, ComponentConfig) and isinstance(b, ComponentConfig):
        for name in type(a).model_fields:
            below = f"{path}.{name}" if path else name
            yield from _differences(getattr(a, name), getattr(b, name), below, specs)
    elif isinstance(a, dict) and isinstance(b, dict):  # blocks
        for name in dict.fromkeys([*a, *b]):
            if name in a and name in b:
                yield from _differences(a[name], b[name], f"{path}.{name}", specs)
            else:
                words = [
                    describe_block(d[name], s) if name in d else "none" for d, s in zip((a, b), specs, strict=True)
                ]
                yield f"{path}.{name}", words[0], words[1]
    elif a != b:
        yield path, say(a, specs[0]), say(b, specs[1])


@dataclass(frozen=True)
class Figure:
    """A number of two specs. None is unknown."""

    what: str
    before: int | None
    after: int | None

    @property
    def change(self) -> float | None:
        """As a share of the first: 0.5 is half as much again."""
        return None if not self.before or self.after is None else self.after / self.before - 1
