"""The byte tokenizer against str.encode."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.core import DataError
from lamina.plugins.tokenizer.byte import END_ID, END_OF_TEXT, ByteConfig, ByteTokenizer

TOKENIZER = ByteTokenizer()


@given(st.text())
def test_ids_are_the_bytes_of_the_text_and_decode_to_it(text: str) -> None:
    ids = TOKENIZER.encode(text)
    assert bytes(ids) == text.encode()
    assert TOKENIZER.decode(ids) == text


def test_end_of_text_is_text_unless_special_tokens_are_allowed() -> None:
    text = f"a{END_OF_TEXT}b"
    assert TOKENIZER.encode(text) == list(text.encode())
    assert TOKENIZER.encode(text, allow_special=True) == [97, END_ID, 98]


def test_decode_shows_the_end_of_text_on_request() -> None:
    assert TOKENIZER.decode([97, END_ID, 98]) == "ab"
    assert TOKENIZER.decode([97, END_ID, 98], skip_special=False) == f"a{END_OF_TEXT}b"


@given(st.binary())
def test_bytes_that_are_not_utf8_become_replacement_characters(data: bytes) -> None:
    assert TOKENIZER.decode(list(data)) == data.decode(errors="replace")


def test_ids_beyond_the_vocabulary_stand_for_no_text() -> None:
    assert TOKENIZER.decode([97, 300, 98]) == "ab"


def test_vocabulary_has_256_bytes_and_the_end_of_text(tmp_path: Path) -> None:
    assert TOKENIZER.vocab_size == 257
    assert TOKENIZER.eos_id == TOKENIZER.special_ids[END_OF_TEXT] == 256
    assert ByteTokenizer.open(TOKENIZER.save(tmp_path), tmp_path).encode("é") == [0xC3, 0xA9]
    assert not ByteTokenizer.untrained(ByteConfig())


def test_a_lone_byte_of_a_character_is_shown_by_number() -> None:
    assert TOKENIZER.token_texts(TOKENIZER.encode("aé")) == ["a", "<0xC3>", "<0xA9>"]


def test_half_a_surrogate_pair_is_a_data_error() -> None:
    with pytest.raises(DataError, match=r"character 1 of the text is U\+D800"):
        TOKENIZER.encode("a\ud800")
