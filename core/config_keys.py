"""The keys of a stranger's config or metadata, as a family reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


class ConfigKeys:
    """A config.json as a family reads it: knows which keys were taken, and collects what is wrong with their values."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = dict(values)
        self.taken: set[str] = set()
        self.problems: list[str] = []

    def get(self, name: str, default: Any = None, *older: str) -> Any:
        """The value under `name`, or one of its older names; `default` when there is none. Null counts as a value."""
        found = default
        for key in (*older, name):
            if key in self.values:
                self.taken.add(key)
                found = self.values[key]
        return found

    def number(self, name: str, default: Any = None, *older: str) -> Any:
        """The same, which must be a number or null."""
        value = self.get(name, default, *older)
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            self.wrong(name, f"{value!r} is no number")
            return default
        return value

    def listed(self, name: str, default: list[Any], length: int | None = None) -> list[Any]:
        """The same, which must be a list, of `length` entries where that is given; `default` for null and none."""
        value = self.get(name)
        if value is None or value == []:
            return default
        if not isinstance(value, list) or (length is not None and len(value) != length):
            self.wrong(name, "not a list" if length is None else f"not a list of {length}, one for each layer")
            return default
        return value

    def wrong(self, name: str, why: str) -> None:
        self.problems.append(f"{name}: {why}")

    def left(self, ignored: Iterable[str]) -> list[str]:
        """Keys with a value that nobody took and nobody said to ignore."""
        return sorted(
            key for key in self.values.keys() - self.taken - set(ignored) if self.values[key] not in (None, {}, [])
        )
