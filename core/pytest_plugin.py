"""`pytest --lamina-check DIST_OR_PATH`: every conformance check of a distribution's components as a test.

Loaded by pytest through the entry point `lamina`; it imports nothing else until the option is given.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("lamina").addoption(
        "--lamina-check",
        action="append",
        default=[],
        metavar="DIST_OR_PATH",
        help="Run lamina's conformance checks on the components of a distribution, or of the folder of its "
        "pyproject.toml. May be repeated.",
    )


def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    for target in config.getoption("--lamina-check"):
        from lamina.core.conformance import checks_for

        where = Path(target) if Path(target).is_dir() else target
        items += [CheckItem.from_parent(session, name=str(check), check=check) for check in checks_for(where)]


class CheckItem(pytest.Item):
    """One check of one component."""

    def __init__(self, *, check: Callable[[], None], **of_pytest: Any) -> None:
        super().__init__(**of_pytest)
        self.check = check

    def runtest(self) -> None:
        self.check()

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        from lamina.core.conformance.checks import Wrong

        return str(excinfo.value) if isinstance(excinfo.value, Wrong) else super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.path, None, f"lamina check: {self.name}"
