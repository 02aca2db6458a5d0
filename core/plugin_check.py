"""`lamina plugin check`: the conformance kit, run in a process of its own. Imports no torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from rich.columns import Columns
from rich.console import RenderableType
from rich.markup import escape

from lamina.core.errors import PluginError, RunFailure

MARKS = {True: "[green]✓[/]", False: "[red]✗[/]", None: "[dim]–[/]"}


def check_plugin(target: str, *, quick: bool = False, progress: bool = True) -> dict[str, Any]:
    """The report on a distribution or folder as plain data. PluginError: there is no such.

    `quick` tries the first example of each component alone. A child does the work: what a plugin breaks, ends or
    leaves behind is then its own.
    """
    # -P and the same path: the child must see what this process sees, and not also what lies in the current folder.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-P", "-m", "lamina.core.conformance", target, *(["--quick"] if quick else [])]
    notes = None if progress else subprocess.DEVNULL
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=notes, text=True, check=False)
    try:
        report: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise RunFailure(f"checking '{target}' ended Python with code {done.returncode}") from None
    if "error" in report:
        raise _as_told(report["error"])
    return report


def _as_told(text: str) -> PluginError:
    error = PluginError(text.splitlines()[0])
    error.args = (text,)
    return error


def check_tables(report: dict[str, Any]) -> Iterator[RenderableType]:
    """A table for each component, what failed below it, and a line that sums up."""
    for plugin in report["failed_plugins"]:
        yield f"{MARKS[False]} [bold]{escape(plugin['plugin'])}[/] does not load: {escape(plugin['error'])}"
    for component in report["components"]:
        yield f"{MARKS[component['passed']]} [bold]{escape(component['kind'])} {escape(component['name'])}[/]"
        cells = [f"{MARKS[check['passed']]} {escape(check['name'])}" for check in component["checks"]]
        yield Columns(cells, padding=(0, 3), equal=True)
        for check in component["checks"]:
            if check["passed"] is False:
                yield f"  {MARKS[False]} [bold]{escape(check['name'])}[/]: {escape(check['about'])}"
                lines = [
                    *check["message"].splitlines(),
                    *([f"options: {check['example']}"] if check["example"] else []),
                ]
                for line in lines:
                    yield f"      {escape(line)}"
    broken = [component for component in report["components"] if not component["passed"]]
    n, checks = len(report["components"]), sum(len(component["checks"]) for component in report["components"])
    said = f"{n} component{'s' * (n != 1)}, {checks} checks"
    yield (
        f"{said}: all passed"
        if report["passed"]
        else f"{said}: {len(broken)} component{'s' * (len(broken) != 1)} failed"
    )
