"""What a check is, how it fails, and the list of them by kind."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lamina.core.conformance.case import Case

ANY = "any"  # checks of every kind


class Wrong(AssertionError):
    """A contract that is not kept: what was expected, what was found, the smallest case known."""

    def __init__(self, expected: str, found: str = "", **case: Any) -> None:
        self.expected, self.found, self.case = expected, found, case
        lines = [f"expected: {expected}"]
        if found:
            lines.append(f"found: {found}")
        if case:
            lines.append("smallest case: " + ", ".join(f"{name} {value}" for name, value in case.items()))
        super().__init__("\n".join(lines))


class NotApplicable(Exception):
    """The contract says nothing about this case, for the reason given."""


@dataclass(frozen=True)
class Check:
    """One property that components of a kind keep."""

    kind: str
    name: str
    about: str
    run: Callable[[Case], None]
    once: bool  # on a component's first example alone, because it takes long or looks at the class


_CHECKS: list[Check] = []


def check(*kinds: str, name: str, once: bool = False) -> Callable[[Callable[[Case], None]], Callable[[Case], None]]:
    """Add a function of one case to the checks of `kinds`; it raises Wrong. Its docstring says what is expected."""

    def add(function: Callable[[Case], None]) -> Callable[[Case], None]:
        about = inspect.cleandoc(function.__doc__ or "").partition("\n")[0]
        _CHECKS.extend(Check(kind, name, about, function, once) for kind in kinds)
        return function

    return add


def checks_of(kind: str) -> list[Check]:
    """Those every component keeps, then the kind's own."""
    return [found for wanted in (ANY, kind) for found in _CHECKS if found.kind == wanted]


def kinds_with_checks() -> set[str]:
    return {found.kind for found in _CHECKS} - {ANY}


def shorten(values: Iterable[Any], most: int = 12) -> str:
    items = [str(value) for value in values]
    return ", ".join(items[:most]) + (", …" if len(items) > most else "")
