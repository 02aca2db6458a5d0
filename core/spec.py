"""A spec as written: found, read, merged with what it extends and with overrides. `resolve` gives it meaning.

Merging, for `extends:` and for overrides alike: mappings merge key by key; a mapping without a `name` laid over a bare
name adds to it; anything else replaces. A component of another name replaces the whole mapping, because the options of
one component mean nothing to another.
"""

from __future__ import annotations

import os.path
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lamina.core.errors import Location, Problem, SpecError, did_you_mean
from lamina.core.files import write_new
from lamina.core.reader import KeyPath, Node, from_data, parse_value, read_file

if TYPE_CHECKING:
    from lamina.core.registry import Registry
    from lamina.core.resolved import ResolvedSpec


@dataclass(eq=False)
class Spec:
    """The merged tree of a spec, each value with the place it was written at."""

    tree: Node
    path: Path
    resolved: ResolvedSpec | None = field(default=None, repr=False)  # as checked when it was loaded

    @property
    def directory(self) -> Path:
        """What file names in the spec are relative to."""
        return self.path.parent


def load_spec(
    path: str | Path,
    overrides: Mapping[str, Any] | None = None,
    *,
    registry: Registry | None = None,
    flags: Mapping[str, str] | None = None,
) -> Spec:
    """Read a spec file (or a shipped spec by its name) and check it. Raises SpecError with every problem.

    `overrides` maps dotted paths to values: `{"dim": 256, "block.attention.n_heads": 4}`; `flags` names the command's
    flag that an override came from, for messages.
    """
    from lamina.core.resolve import resolve  # resolve builds on this module

    spec = read_spec(path, overrides, flags)
    spec.resolved = resolve(spec, registry)
    return spec


def read_spec(
    path: str | Path, overrides: Mapping[str, Any] | None = None, flags: Mapping[str, str] | None = None
) -> Spec:
    """Read and merge, without asking what the values mean."""
    found, flags = find_spec(path), flags or {}
    tree = _read_extended(found, ())
    for key, value in (overrides or {}).items():
        place = f"--set {key}={value}" if isinstance(value, str) else f"override {key}"
        tree = merge(tree, _override(tree, key, value, Location(f"{flags[key]} {value}" if key in flags else place)))
    return Spec(tree, found)


def find_spec(path: str | Path) -> Path:
    """A file as given, or a shipped spec called by its bare name, even where a directory is called so too."""
    given, shipped = Path(path), shipped_specs()
    if not str(path).strip():
        raise SpecError("no spec is named", hint=f"give a file, or a shipped spec: {', '.join(shipped)}")
    # os.path's `exists` and `isfile`, unlike Path's, take any text.
    if str(path) in shipped and not os.path.isfile(given):
        return shipped[str(path)]
    if os.path.exists(given) or given.suffix in (".yaml", ".yml") or len(given.parts) != 1:
        return given
    raise SpecError(
        f"{given}: no such file, and no shipped spec has this name",
        hint=did_you_mean(given.name, list(shipped)),
        note=f"shipped: {', '.join(shipped)}",
    )


def shipped_specs() -> dict[str, Path]:
    """The specs that come with lamina, by name."""
    folder = Path(str(resources.files("lamina"))) / "specs"
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def copy_shipped(name: str, file: Path) -> None:
    """Write a shipped spec's text, comments included, to a file that must not exist yet."""
    shipped = shipped_specs()
    if name not in shipped:
        hint, known = did_you_mean(name, list(shipped)), f"shipped: {', '.join(shipped)}"
        raise SpecError(f"no shipped spec is called '{name}'", hint=hint, note=known)
    if os.path.lexists(file):
        raise SpecError(f"{file}: exists already", hint="choose another name, or remove it first")
    write_new(file, shipped[name].read_text(encoding="utf-8"))


def _read_extended(path: Path, above: tuple[Path, ...]) -> Node:
    tree = read_file(path, ours=path in shipped_specs().values())
    if not isinstance(tree.value, dict):
        raise SpecError([Problem("a spec is a mapping of keys to values", tree.location)])
    base = tree.value.pop("extends", None)
    if base is None:
        return tree
    if not isinstance(base.value, str):
        raise SpecError([Problem("extends names another spec file", base.location)])
    target = path.parent / base.value
    if not os.path.exists(target) and base.value in shipped_specs():
        target = shipped_specs()[base.value]
    if not os.path.isfile(target):
        hint = did_you_mean(base.value, [*shipped_specs()])
        raise SpecError([Problem(f"no such spec file: {str(target)!r}", base.location, hint)])
    if target.resolve() in (path.resolve(), *above):
        raise SpecError([Problem(f"'{base.value}' extends this spec in turn", base.location)])
    return merge(_read_extended(target, (*above, path.resolve())), tree)


def merge(base: Node, over: Node, depth: int = 0) -> Node:
    """`over` laid over `base`; see the rule at the top of this file."""
    if not isinstance(over.value, dict):
        return over
    if isinstance(base.value, str) and "name" not in over.value:
        base = Node({"name": Node(base.value, base.location, base.location)}, base.location, base.key_location)
    if not isinstance(base.value, dict) or (depth and _renames(base, over)):
        return over
    merged = dict(base.value)
    for key, value in over.value.items():
        merged[key] = merge(merged[key], value, depth + 1) if key in merged else value
    return Node(merged, over.location, over.key_location or base.key_location)


def _renames(base: Node, over: Node) -> bool:
    new, old = over.value.get("name"), base.value.get("name")
    return new is not None and (old is None or new.value != old.value)


def _override(tree: Node, key: str, value: Any, place: Location) -> Node:
    """A tree that sets the dotted path `key`, to be merged over `tree`; `place` is what messages call it."""
    node = parse_value(value, str(place)) if isinstance(value, str) else from_data(value, place)
    steps: KeyPath = tuple(int(step) if step.isdecimal() and len(step) < 10 else step for step in key.split("."))
    if not all(str(step) for step in steps):
        raise SpecError(f"{place}: write a dotted path, such as block.attention.n_heads=4")
    for index in range(len(steps) - 1, -1, -1):
        step, above = steps[index], tree.at(steps[:index])
        if above is not None and isinstance(above.value, list):
            if not isinstance(step, int) or step >= len(above.value):
                raise SpecError(f"{place}: the list has {len(above.value)} entries, counted from 0")
            node = Node([merge(old, node, 1) if i == step else old for i, old in enumerate(above.value)], place)
        else:
            node = Node({str(step): node}, place, place)
    return node
