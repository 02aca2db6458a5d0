"""The causal mask."""

from __future__ import annotations

import torch

from lamina.core import Span, visible
from lamina.plugins.mask.causal import Causal


def test_a_token_sees_itself_and_all_before_it() -> None:
    span = Span.run(0, 5, torch.device("cpu"))
    assert visible(Causal(), span, span).squeeze(0).equal(torch.ones(5, 5).tril().bool())


def test_causality_asks_nothing_of_the_attention() -> None:
    assert not Causal.requires(None)


def test_no_cache_entry_is_ever_dropped() -> None:
    assert Causal().reach is None
    assert Causal().dense_up_to >= 10**12
