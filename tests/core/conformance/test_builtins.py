"""lamina's own components keep the contracts that strangers' are held to: the first example of each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

import pytest

from lamina.core.conformance import Item, Result, items_of
from lamina.core.conformance.run import run
from lamina.core.registry import Entry, load_plugins

REGISTRY = load_plugins(only=[])
ITEMS: dict[Entry, list[Item]] = defaultdict(list)
for item in items_of(REGISTRY.entries(), REGISTRY):
    ITEMS[item.subject.entry].append(item)
# Slow ones, which `lamina plugin check lamina` has, and each kind's own tests besides.
LEFT_OUT = {"compiles", "autocast", "meta device", "documents in a cache", "cache not advanced"}


def failures(items: list[Item]) -> Iterator[Result]:
    cases = items[0].subject.cases
    cases[:] = [replace(cases[0], varied=True)]  # with few lengths
    chosen = (item for item in items if item.check.name not in LEFT_OUT and item.check.kind != "backend")
    return (result for result in run(chosen, 1) if result.passed is False)


@pytest.mark.parametrize("entry", ITEMS, ids=lambda entry: f"{entry.kind}/{entry.name}")
def test_a_builtin_keeps_the_contract_of_its_kind(entry: Entry) -> None:
    for failure in failures(ITEMS[entry]):
        pytest.fail(f"{failure.check}: {failure.message}", pytrace=False)
