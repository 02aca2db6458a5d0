"""The conformance kit: every contract of every kind as a check that any plugin's tests can run.

    import pytest
    from lamina.core.conformance import checks_for

    @pytest.mark.parametrize("check", checks_for("acme-parts"), ids=str)
    def test_keeps_its_contract(check):
        check()

`lamina plugin check` runs the same. A check that fails says what was expected and the smallest case it fails in.
"""

from __future__ import annotations

from lamina.core.conformance import (  # noqa: F401  # they add their checks
    activation,
    attention,
    backend,
    compiled,
    corpus,
    decoder,
    decoding,
    every,
    family,
    ffn,
    mask,
    modules,
    norm,
    optimizer,
    residual,
    rope_scaling,
    router,
    sampler,
    schedule,
    tokenizer,
)
from lamina.core.conformance.checks import Check, NotApplicable, Wrong, check, checks_of
from lamina.core.conformance.run import Item, Result, checks_for, items_of

__all__ = ["Check", "Item", "NotApplicable", "Result", "Wrong", "check", "checks_for", "checks_of", "items_of"]
