"""The index as tables for a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table


def component_list(components: Iterable[dict[str, Any]]) -> Iterator[RenderableType]:
    """One line a component, by kind."""
    kind, table = None, _table()
    for component in components:
        if component["kind"] != kind:
            if kind is not None:
                yield table
            kind, table = component["kind"], _table()
            yield f"[bold]{escape(kind)}[/]"
        origin = "" if component["distribution"] == "lamina" else f" [dim]({escape(component['distribution'])})[/]"
        table.add_row(escape(component["name"]), escape(component["summary"]) + origin)
    yield table


def component_page(components: Iterable[dict[str, Any]]) -> Iterator[RenderableType]:
    """All there is to know of a component; of several when distributions offer one name."""
    for component in components:
        yield f"[bold]{escape(component['kind'])} {escape(component['name'])}[/]: {escape(component['summary'])}"
        if component["formula"]:
            yield escape(component["formula"])
        if component["paper"]:
            yield f"paper: {escape(component['paper'])}"
        yield f"from: {escape(component['distribution'])} {escape(component['version'])}, {escape(component['source'])}"
        table = _table()
        for option in component["options"]:
            told = "required" if option["required"] else f"default {json.dumps(option['default'], ensure_ascii=False)}"
            text = f"{escape(option['type'])}; {escape(told)}\n[dim]{escape(option['description'])}[/]"
            table.add_row(escape(option["name"]), text)
        yield table if component["options"] else "no options"


def plugin_list(plugins: Iterable[dict[str, Any]]) -> Iterator[RenderableType]:
    """One line a plugin; what went wrong below it."""
    table = _table()
    for plugin in plugins:
        origin = f"{plugin['distribution']} {plugin['version']}"
        if plugin["error"]:
            state = f"[red]failed:[/] {escape(plugin['error'])}"
        else:
            n = len(plugin["components"])
            state = f"{n} component{'s' * (n != 1)}"
            if plugin["distribution"] != "lamina":
                state += f": {escape(', '.join(plugin['components']))}"
        for name in plugin["clashes"]:
            bare = name.rpartition("/")[2]
            state += (
                f"\n{escape(name)} is offered by others too: write '{escape(plugin['distribution'])}:{escape(bare)}'"
            )
        table.add_row(escape(plugin["name"]), escape(origin), state)
    yield table


def _table() -> Table:
    return Table(box=None, show_header=False, padding=(0, 0, 0, 2))
