"""Every contract that lamina has for the kinds of these parts."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamina.core.conformance import Item, checks_for


@pytest.mark.parametrize("check", checks_for(Path(__file__).parents[1]), ids=str)
def test_it_keeps_the_contract_of_its_kind(check: Item) -> None:
    check()
