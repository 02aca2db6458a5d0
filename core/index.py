"""What is installed, without importing it: an index of plugins and components, kept in the user's cache.

Plugins import torch, which takes a second; listing them must not. The index is made by a child process that loads the
plugins, and is used for as long as its fingerprint holds: the versions of lamina, Python and every plugin's
distribution, LAMINA_PLUGINS, and the size and time of each source file. While a plugin fails it is made anew each time.
LAMINA_CACHE names another folder for it.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import entry_points, version
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from platformdirs import user_cache_dir
from pydantic.fields import FieldInfo

from lamina.core.component import Part, slot_kind
from lamina.core.distribution import canonical
from lamina.core.errors import LaminaError, PluginError, did_you_mean
from lamina.core.files import write_atomically
from lamina.core.registry import GROUP, Entry, Registry, iter_sources, load_plugins, unknown
from lamina.core.schema import config_schema

FORMAT = 1
PATIENCE = 300  # seconds for all plugins to load


@dataclass(frozen=True)
class Index:
    """Plugins and components as plain data: what `lamina plugins --json` and `lamina components --json` print."""

    plugins: list[dict[str, Any]]
    components: list[dict[str, Any]]

    def find(self, kind: str | None = None, name: str | None = None) -> list[dict[str, Any]]:
        """Components of a kind and of a name, `dist:name` included. Raises PluginError: there is none."""
        kinds = sorted({component["kind"] for component in self.components})
        if kind is not None and kind not in kinds:
            known = f"known: {', '.join(kinds)}"
            raise PluginError(f"no kind is called '{kind}'", hint=did_you_mean(kind, kinds), note=known)
        found = [component for component in self.components if kind in (None, component["kind"])]
        if name is None:
            return found
        distribution, _, bare = name.rpartition(":")
        owner = canonical(distribution)
        chosen = [c for c in found if c["name"] == bare and owner in ("", canonical(c["distribution"]))]
        if not chosen:
            offers = [(component["distribution"], component["name"]) for component in found]
            plugins = [(plugin["name"], plugin["distribution"], plugin["error"]) for plugin in self.plugins]
            raise unknown(str(kind), name, offers, plugins)
        return chosen


def read_index() -> Index:
    """The index of what is installed now, from the cache where that still holds. Imports no plugin."""
    file = _cache_file()
    with suppress(OSError, ValueError, KeyError, TypeError):  # none yet, or damaged: it is made anew
        stored = json.loads(file.read_text(encoding="utf-8"))
        whole = not any(plugin["error"] for plugin in stored["plugins"])
        if whole and stored["fingerprint"] == _fingerprint(stored["sources"]):
            return Index(stored["plugins"], stored["components"])
    made = _ask_child()
    stored = {**made, "fingerprint": _fingerprint(made["sources"])}
    with suppress(LaminaError):  # a cache that cannot be written costs time and nothing else
        write_atomically(file, json.dumps(stored))
    return Index(made["plugins"], made["components"])


def _cache_file() -> Path:
    where = hashlib.sha256("\n".join([sys.prefix, *sys.path]).encode()).hexdigest()[:16]
    return Path(os.environ.get("LAMINA_CACHE") or user_cache_dir("lamina")) / f"index-{where}.json"


def _fingerprint(sources: Iterable[str]) -> str:
    """Of everything that the index follows from; `sources` are the files it was made of."""
    found = sorted(
        (point.name, point.value, point.dist.name if point.dist else "", point.dist.version if point.dist else "")
        for point in entry_points(group=GROUP)
    )
    stats = [(file, *_stat(file)) for file in sorted(sources)]
    state = [FORMAT, version("lamina"), sys.version, os.environ.get("LAMINA_PLUGINS"), found, stats]
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()


def _stat(file: str) -> tuple[int, int]:
    try:
        found = os.stat(file)
    except OSError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_size)


def _ask_child() -> dict[str, Any]:
    # -P and the same path: the child must see what this process sees, and not also what lies in the current folder.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-P", "-m", "lamina.core.index"]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        raise PluginError(f"the plugins did not load within {PATIENCE} seconds", hint=_LIMIT) from None
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise PluginError(f"loading the plugins ended Python with code {done.returncode}: {last[0]}", hint=_LIMIT)
    made: dict[str, Any] = json.loads(done.stdout)
    return made


_LIMIT = "set LAMINA_PLUGINS to the plugins to load (comma-separated, empty for none) and find the one at fault"


def make_index(registry: Registry) -> dict[str, Any]:
    """The index of a registry, with the files it was made of."""
    offers = Counter((entry.kind, entry.name) for entry in registry.entries())
    plugins = [
        {
            "name": plugin.name,
            "target": plugin.target,
            "distribution": plugin.distribution,
            "version": plugin.version,
            "components": [f"{entry.kind}/{entry.name}" for entry in plugin.entries],
            "clashes": [f"{e.kind}/{e.name}" for e in plugin.entries if offers[e.kind, e.name] > 1],
            "error": plugin.error,
        }
        for plugin in registry.plugins
    ]
    files = {str(path) for path in iter_sources(registry)}
    for plugin in registry.plugins:
        module = sys.modules.get(plugin.target.partition(":")[0])
        if module is not None and (source := getattr(module, "__file__", None)):
            files.add(source)
    return {
        "plugins": plugins,
        "components": [_component(entry) for entry in registry.entries()],
        "sources": sorted(files),
    }


def _component(entry: Entry) -> dict[str, Any]:
    config = entry.component.Config
    return {
        "kind": entry.kind,
        "name": entry.name,
        "summary": _summary(entry.component.__doc__),
        "formula": _first_paragraph(importlib.import_module(entry.component.__module__).__doc__),
        "paper": entry.component.paper,
        "distribution": entry.distribution,
        "version": entry.version,
        "plugin": entry.plugin,
        "source": entry.source,
        "options": [option_row(name, info) for name, info in config.model_fields.items()],
        "schema": config_schema(config),
    }


def option_row(name: str, info: FieldInfo) -> dict[str, Any]:
    default = None if info.is_required() else info.get_default(call_default_factory=True)
    kind = slot_kind(info)
    return {
        "name": name,
        "type": _say_type(info.annotation, kind) + "".join(f", {rule}" for rule in _rules(info)),
        "required": info.is_required(),
        "default": list(default) if isinstance(default, tuple) else default,
        "description": info.description or "",
        "slot": kind,
    }


def _rules(info: FieldInfo) -> list[str]:
    words = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    return [
        f"{sign} {getattr(rule, name)}" for rule in info.metadata for name, sign in words.items() if hasattr(rule, name)
    ]


_WORDS: dict[Any, str] = {int: "integer", float: "number", bool: "true or false", str: "text", type(None): "null"}


def _say_type(annotation: Any, kind: str | None) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is Part:
        return str(kind)
    if origin in (Union, UnionType):
        return " or ".join(_say_type(argument, kind) for argument in arguments)
    if origin is Literal:
        return " or ".join(str(argument) for argument in arguments)
    if origin in (list, tuple):
        return f"list of {_say_type(arguments[0], kind)}" if arguments else "list"
    if hasattr(annotation, "__metadata__"):
        return _say_type(arguments[0], kind)
    return _WORDS.get(annotation) or str(getattr(annotation, "__name__", annotation))


def _summary(text: str | None) -> str:
    """The whole sentences of the first line, or the one that runs on from it."""
    paragraph = _first_paragraph(text)
    within = len(inspect.cleandoc(text or "").partition("\n")[0])
    ends = [found.start() for found in re.finditer(r"(?<=[.!?])(?= [A-Z`]|$)", paragraph)]
    return paragraph[: max((end for end in ends if end <= within), default=min(ends, default=len(paragraph)))]


def _first_paragraph(text: str | None) -> str:
    return " ".join(inspect.cleandoc(text).partition("\n\n")[0].split()) if text else ""


def _main() -> None:
    """Print the index on stdout; whatever plugins print meanwhile goes to stderr."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    out.write(json.dumps(make_index(load_plugins()), default=str))
    out.close()


if __name__ == "__main__":
    _main()
