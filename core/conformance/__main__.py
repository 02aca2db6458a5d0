"""Check a target and print the report as JSON on stdout: what `lamina plugin check` runs in a process of its own."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from lamina.core.conformance import items_of
from lamina.core.conformance.run import run
from lamina.core.conformance.target import find_target
from lamina.core.errors import LaminaError


def report(name: str, quick: bool) -> dict[str, Any]:
    """The checks of every component of the target, as plain data."""
    import torch

    torch.set_num_threads(1)  # nothing here is large enough to share out
    target = find_target(name)
    components: dict[tuple[str, str], dict[str, Any]] = {}
    for result in run(items_of(target.entries, target.registry), 1 if quick else None):
        key = (result.kind, result.name)
        if key not in components:
            components[key] = {"kind": result.kind, "name": result.name, "checks": []}
            print(f"{result.kind} {result.name}", file=sys.stderr, flush=True)
        checks = components[key]["checks"]
        found = {name: value for name, value in result.to_dict().items() if name not in ("kind", "name")}
        checks.append({"name": found.pop("check"), **found})
    failed = [{"plugin": plugin.name, "error": plugin.error} for plugin in target.plugins if plugin.error is not None]
    for component in components.values():
        component["passed"] = all(check["passed"] is not False for check in component["checks"])
    return {
        "distribution": target.distribution,
        "passed": not failed and all(component["passed"] for component in components.values()),
        "failed_plugins": failed,
        "components": list(components.values()),
    }


def _main() -> None:
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what plugins print goes to stderr
    try:
        found = report(sys.argv[1], "--quick" in sys.argv[2:])
    except LaminaError as error:
        found = {"error": str(error)}
    out.write(json.dumps(found))
    out.close()


if __name__ == "__main__":
    _main()
