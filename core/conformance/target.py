"""What `lamina plugin check` is pointed at: an installed distribution, or the folder of one."""

from __future__ import annotations

import importlib
import sys
import tomllib
from dataclasses import dataclass
from functools import partial
from importlib.metadata import EntryPoint, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from lamina.core.distribution import canonical
from lamina.core.errors import PluginError, did_you_mean
from lamina.core.registry import GROUP, Entry, Plugin, Registry, load_plugin, load_plugins


@dataclass(frozen=True)
class Target:
    """Plugins to check, and the registry they stand in."""

    distribution: str
    plugins: tuple[Plugin, ...]
    registry: Registry

    @property
    def entries(self) -> list[Entry]:
        return [entry for plugin in self.plugins for entry in plugin.entries]

    def must_load(self) -> None:
        for plugin in self.plugins:
            if plugin.error is not None:
                raise PluginError(f"plugin '{plugin.name}' of {self.distribution} failed to load: {plugin.error}")


def find_target(target: str | Path) -> Target:
    """A folder with a pyproject.toml, or else the distribution of that name. PluginError: it is neither."""
    name = str(target)
    if isinstance(target, Path) or Path(name).is_dir() or "/" in name or name.endswith(".toml"):
        is_name = not isinstance(target, Path) and name.replace("-", "").replace("_", "").isalnum() and _installed(name)
        if not is_name:
            return _of_folder(Path(name))
    return _of_distribution(name)


def _installed(name: str) -> bool:
    return any(canonical(plugin.distribution) == canonical(name) for plugin in load_plugins().plugins)


def _of_distribution(name: str) -> Target:
    registry = load_plugins()
    plugins = tuple(p for p in registry.plugins if name == p.name or canonical(p.distribution) == canonical(name))
    if plugins:
        return Target(plugins[0].distribution, plugins, registry)
    known = sorted({plugin.distribution for plugin in registry.plugins})
    try:
        found = distribution(name).name
    except (PackageNotFoundError, ValueError):
        raise PluginError(
            f"no distribution called '{name}' is installed, and there is no such folder",
            hint=did_you_mean(name, known) or "give a distribution's name, or the folder of its pyproject.toml",
            note=f"with components: {', '.join(known)}",
        ) from None
    raise PluginError(
        f"{found} offers no components",
        hint=f"its pyproject.toml needs an entry point in the group '{GROUP}'",
        note=f"with components: {', '.join(known)}",
    )


def _of_folder(folder: Path) -> Target:
    file = folder if folder.name == "pyproject.toml" else folder / "pyproject.toml"
    folder = file.parent.resolve()
    if not file.is_file():
        raise PluginError(f"'{file}' does not exist", hint="give the folder that holds the plugin's pyproject.toml")
    try:
        project: Any = tomllib.loads(file.read_text(encoding="utf-8")).get("project", {})
        name, points = str(project["name"]), dict(project.get("entry-points", {}).get(GROUP, {}))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise PluginError(f"'{file}' cannot be read: {error}") from None
    except (KeyError, TypeError, AttributeError, ValueError):
        raise PluginError(f"'{file}' has no [project] with a name") from None
    if not points:
        raise PluginError(
            f"'{file}' has no entry point in the group '{GROUP}'", hint=f"add [project.entry-points.{GROUP}]"
        )
    if canonical(name) == "lamina":
        return _of_distribution(name)
    for place in (folder, folder / "src"):
        if place.is_dir() and str(place) not in sys.path:
            sys.path.insert(0, str(place))
    importlib.invalidate_caches()
    version = str(project.get("version", "0"))
    plugins = tuple(_load(point, str(value), name, version) for point, value in sorted(points.items()))
    others = [p for p in load_plugins().plugins if canonical(p.distribution) != canonical(name)]
    return Target(name, plugins, Registry.of([*others, *plugins]))


def _load(point: str, value: str, name: str, version: str) -> Plugin:
    return load_plugin(point, value, name, version, partial(EntryPoint(point, value, GROUP).load))
