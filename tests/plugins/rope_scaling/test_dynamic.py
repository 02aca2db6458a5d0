"""Dynamic NTK scaling against transformers, function and whole forward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.testing import assert_close

from lamina.core import Span, SpecError
from lamina.core.context import place_documents

LENGTHS = [5, 8, 9, 13, 40]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(("factor", "original"), [(4.0, 8), (2.0, 12)])
def test_dynamic_equals_transformers(
    scaling: Any, turns_at: Any, transformers_turns: Any, length: int, factor: float, original: int
) -> None:
    theirs = transformers_turns("dynamic", context_length=original, factor=factor, length=length)
    assert_close(turns_at(scaling("dynamic", factor=factor, original_context_length=original), length), theirs)
    assert_close(turns_at(scaling("dynamic", factor=factor, context_length=original), length), theirs)
    fixed = scaling("dynamic", factor=factor, original_context_length=original, length=length)
    assert_close(turns_at(fixed, 3), theirs)


def test_every_document_has_the_frequencies_of_its_own_length(scaling: Any, turns_at: Any) -> None:
    made = scaling("dynamic", factor=4.0, original_context_length=2)
    packed, _ = made.turns(place_documents(torch.tensor([[0] * 7 + [1] * 4, [0] * 1 + [1] * 10])))
    for row, column, length in [(0, 0, 7), (0, 6, 7), (0, 7, 4), (0, 10, 4), (1, 0, 1), (1, 1, 10), (1, 10, 10)]:
        assert_close(packed[row, column], turns_at(made, length)[0])


def test_a_cached_call_goes_by_the_room_of_its_document(scaling: Any, turns_at: Any) -> None:
    made = scaling("dynamic", factor=4.0, original_context_length=2)
    positions = torch.tensor([[3]])
    assert_close(made.turns(Span(positions, None, 3, room=9))[0].flatten(), turns_at(made, 9)[0])
    roomy = Span(positions, torch.zeros(1, 1), None, room=torch.tensor([[9]]))
    assert_close(made.turns(roomy)[0].flatten(), turns_at(made, 9)[0])


def test_texts_of_any_length_have_the_logits_of_transformers(llama_pair: Any, check_length_regimes: Any) -> None:
    options = {"factor": 4.0}
    theirs, decoder = llama_pair({"rope_type": "dynamic", **options}, {"name": "dynamic", **options}, 8)
    check_length_regimes(theirs, decoder, [5, 8, 9, 14])


def test_a_single_pair_is_refused(scaling: Any) -> None:
    with pytest.raises(SpecError, match="only 2 channels are turned"):
        scaling("dynamic", width=2, factor=2.0)
