"""The registry: every component that installed distributions offer, as a frozen value. Imports no torch itself.

`load_plugins` takes each entry point of the group `lamina` in its own `try`; lamina's own components come through the
same door (`builtin = "lamina.plugins"`). What fails is recorded with its reason and stops nothing else.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pluggy

from lamina.core.component import API_VERSION, Component, ComponentConfig, Part, PluginHooks
from lamina.core.distribution import canonical
from lamina.core.errors import PluginError, did_you_mean

GROUP = "lamina"


@dataclass(frozen=True)
class Entry:
    """A component and where it came from."""

    kind: str
    name: str
    component: type[Component]
    distribution: str
    version: str
    plugin: str
    source: str  # the file that defines the class

    def __str__(self) -> str:
        return f"{self.kind}/{self.distribution}:{self.name}"


@dataclass(frozen=True)
class Plugin:
    """One entry point: what it registered, or why it failed."""

    name: str
    target: str
    distribution: str
    version: str
    entries: tuple[Entry, ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class Registry:
    """Kind and name -> entry. Two distributions may offer one name; then `dist:name` picks one."""

    plugins: tuple[Plugin, ...]
    _by_name: dict[tuple[str, str], tuple[Entry, ...]] = field(repr=False)
    _preferred: Mapping[tuple[str, str], str] = field(default_factory=dict, repr=False)

    @staticmethod
    def of(plugins: Iterable[Plugin]) -> Registry:
        found: dict[tuple[str, str], tuple[Entry, ...]] = {}
        plugins = tuple(plugins)
        for plugin in plugins:
            for entry in plugin.entries:
                found[entry.kind, entry.name] = (*found.get((entry.kind, entry.name), ()), entry)
        return Registry(plugins, found)

    def preferring(self, distributions: Mapping[tuple[str, str], str]) -> Registry:
        """The same, where a bare name that several offer means that of the distribution given for (kind, name)."""
        return replace(self, _preferred={**self._preferred, **distributions})

    @cached_property
    def ours(self) -> Registry:
        """The same, where a bare name that several offer means lamina's own: for what lamina itself has written."""
        clashes = (key for key, entries in self._by_name.items() if len(entries) > 1)
        return self.preferring(dict.fromkeys(clashes, "lamina"))

    @property
    def failed(self) -> dict[str, str]:
        """Entry point name -> why it did not load."""
        return {plugin.name: plugin.error for plugin in self.plugins if plugin.error is not None}

    def entries(self, kind: str | None = None) -> list[Entry]:
        found = [entry for entries in self._by_name.values() for entry in entries]
        return sorted((e for e in found if kind in (None, e.kind)), key=lambda e: (e.kind, e.name, e.distribution))

    def kinds(self) -> list[str]:
        return sorted({kind for kind, _ in self._by_name})

    def names(self, kind: str) -> list[str]:
        return sorted({name for found_kind, name in self._by_name if found_kind == kind})

    def get(self, kind: str, name: str) -> Entry:
        """The entry called `name` or `dist:name`. Raises PluginError: nobody offers it, or two do."""
        distribution, _, bare = name.rpartition(":")
        found = self._by_name.get((kind, bare), ())
        wanted = distribution or (self._preferred.get((kind, bare)) if len(found) > 1 else None)
        if wanted:
            of_it = tuple(entry for entry in found if canonical(entry.distribution) == canonical(wanted))
            found = of_it or (() if distribution else found)
        if len(found) == 1:
            return found[0]
        if found:
            choices = [f"{entry.distribution}:{entry.name}" for entry in found]
            raise PluginError(
                f"{' and '.join(entry.distribution for entry in found)} both offer the {kind} '{bare}'",
                hint=f"write '{choices[0]}' or '{choices[1]}'",
            )
        offers = [(entry.distribution, entry.name) for entry in self.entries(kind)]
        raise unknown(kind, name, offers, [(plugin.name, plugin.distribution, plugin.error) for plugin in self.plugins])

    def entry_of(self, part: Part) -> Entry:
        """Where a part comes from, however many offer its name."""
        return next(entry for entry in self.entries(part.kind) if entry.component is part.component)


def unknown(
    kind: str, name: str, offers: Collection[tuple[str, str]], plugins: Collection[tuple[str, str, str | None]]
) -> PluginError:
    """That nobody offers a component `name` or `dist:name`, and how to come by it.

    `offers` are distribution and name of every component of the kind; `plugins` entry point, distribution and, of
    those that failed, the reason.
    """
    distribution, _, bare = name.rpartition(":")
    names = sorted({offered for _, offered in offers})
    failed = [f"note: plugin '{point}' failed to load ({why}) and may provide it" for point, _, why in plugins if why]
    if distribution:
        installed = canonical(distribution) in {canonical(owner) for _, owner, _ in plugins}
        own = [offered for owner, offered in offers if canonical(owner) == canonical(distribution)]
        hint = did_you_mean(bare, own) if installed else f"pip install {distribution}"
    else:
        hint = did_you_mean(bare, names)
        if not hint and not failed:
            hint = "pip install the plugin that offers it, or use one of these"
    note = "\n".join([f"known: {', '.join(names) or 'none'}", *failed])
    return PluginError(f"no {kind} is called '{name}'", hint=hint, note=note)


def load_plugins(group: str = GROUP, only: Iterable[str] | None = None) -> Registry:
    """Collect every component offered by installed distributions, lamina's own included.

    `only` names the entry points or distributions to load beside lamina's own; the environment variable LAMINA_PLUGINS
    (comma-separated, empty for none) says the same.
    """
    if only is None and (limit := os.environ.get("LAMINA_PLUGINS")) is not None:
        only = [name.strip() for name in limit.split(",")]
    chosen = None if only is None else {"lamina", *map(canonical, only)}
    plugins = []
    for point in sorted(entry_points(group=group), key=lambda point: (point.name != "builtin", point.name)):
        distribution, version = _provenance(point)
        if chosen is None or chosen & {canonical(point.name), canonical(distribution)}:
            # Standard output belongs to what the user asked for, JSON often, whatever a plugin prints as it loads.
            with redirect_stdout(sys.stderr):
                plugins.append(load_plugin(point.name, point.value, distribution, version, point.load))
    return Registry.of(plugins)


def _provenance(point: EntryPoint) -> tuple[str, str]:
    return (point.dist.name, point.dist.version) if point.dist is not None else ("unknown", "0")


def load_plugin(name: str, target: str, distribution: str, version: str, load: Callable[[], Any]) -> Plugin:
    """One plugin, loaded by itself. All of its components are taken, or none and the reason is kept."""
    try:
        module = load()
        declared = getattr(module, "api_version", API_VERSION)
        if declared != API_VERSION:
            raise PluginError(f"it is written for plugin API {declared}; this lamina has {API_VERSION}")
        manager = pluggy.PluginManager(GROUP)
        manager.add_hookspecs(PluginHooks)
        manager.register(module, name)
        manager.check_pending()  # pluggy would ignore a mistyped hook name
        if not manager.hook.register_components.get_hookimpls():
            raise PluginError("it implements no register_components hook")
        entries: list[Entry] = []

        def register(component_name: str, component: type[Component]) -> None:
            entry = _entry(component_name, component, distribution, version, name)
            if any((known.kind, known.name) == (entry.kind, entry.name) for known in entries):
                raise PluginError(f"it registers the {entry.kind} '{component_name}' twice")
            entries.append(entry)

        manager.hook.register_components(register=register)
    except KeyboardInterrupt:
        raise
    except (
        BaseException
    ) as error:  # a stranger's bug must not take lamina down, `sys.exit()` and `pytest.skip()` neither
        text = " ".join(str(error).split())[:300] or type(error).__name__
        reason = text if isinstance(error, (PluginError, ImportError)) else f"{type(error).__name__}: {text}"
        return Plugin(name, target, distribution, version, error=reason)
    return Plugin(name, target, distribution, version, tuple(entries))


def _entry(name: str, component: type[Component], distribution: str, version: str, plugin: str) -> Entry:
    if not (isinstance(component, type) and issubclass(component, Component)):
        raise PluginError(f"'{name}' is not a Component class but {component!r}")
    kind = getattr(component, "kind", None)
    if not isinstance(kind, str):
        raise PluginError(
            f"'{name}' ({component.__name__}) derives from no kind's base class, such as Norm or Attention"
        )
    if inspect.isabstract(component):
        missing = ", ".join(sorted(getattr(component, "__abstractmethods__", ())))
        raise PluginError(f"{kind} '{name}' ({component.__name__}) lacks {missing}")
    if not (isinstance(component.Config, type) and issubclass(component.Config, ComponentConfig)):
        raise PluginError(f"{kind} '{name}': Config must derive from ComponentConfig")
    if not (isinstance(name, str) and name.isascii() and name.replace("_", "").isalnum()):
        raise PluginError(f"{kind} {name!r}: a name is letters, digits and underscores")
    try:
        source = inspect.getsourcefile(component) or ""
    except (TypeError, OSError):  # made in a notebook or by `exec`
        source = ""
    return Entry(kind, name, component, distribution, version, plugin, source)


def iter_sources(registry: Registry) -> Iterator[Path]:
    """The files that define what the registry holds."""
    yield from {Path(entry.source) for entry in registry.entries() if entry.source}
