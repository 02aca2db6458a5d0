"""The character tokenizer: a sorted vocabulary, strict about what is not in it."""

from __future__ import annotations

import json
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.core import DataError
from lamina.plugins.tokenizer.character import FILE, CharacterConfig, CharacterTokenizer

# The characters of tiny Shakespeare.
PLAY = "\n !$&',-.3:;?" + string.ascii_uppercase + string.ascii_lowercase


def train(*texts: str, vocab_size: int = 1000, config: CharacterConfig | None = None) -> CharacterTokenizer:
    return CharacterTokenizer.train(config or CharacterConfig(), texts, vocab_size)


def test_a_text_like_shakespeare_has_65_ids_in_order_of_code_point() -> None:
    tokenizer = train("".join(reversed(PLAY)) * 3, "ROMEO: What light?\n", vocab_size=65)
    assert tokenizer.vocab_size == 65
    assert tokenizer.encode("\n z") == [0, 1, 64]


@given(st.text(min_size=1))
def test_the_training_text_round_trips(text: str) -> None:
    tokenizer = train(text)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert sorted(set(text)) == [tokenizer.decode([i]) for i in range(tokenizer.vocab_size)]


def test_a_saved_vocabulary_opens_to_the_same_tokenizer(tmp_path: Path) -> None:
    config = train('héllo 😀\n"\\\0', config=CharacterConfig(unknown="skip")).save(tmp_path)
    assert not CharacterTokenizer.untrained(config)
    opened = CharacterTokenizer.open(config, tmp_path)
    assert opened.characters == "".join(sorted('hélo 😀\n"\\\0'))
    assert opened.encode("hxe😀") == train('héllo 😀\n"\\\0').encode("h😀")


def test_an_unknown_character_is_named_with_a_way_out() -> None:
    with pytest.raises(DataError, match=r"character 'é' \(U\+00E9\) is not among the 3") as caught:
        train("abc").encode("abé")
    assert "unknown: skip" in str(caught.value)


def test_unknown_characters_are_left_out_on_request() -> None:
    tokenizer = train("abc", config=CharacterConfig(unknown="skip"))
    assert tokenizer.decode(tokenizer.encode("a€bc!")) == "abc"


def test_more_characters_than_vocab_size_is_an_error_that_tells_the_number() -> None:
    with pytest.raises(DataError, match="has 4 different characters; vocab_size is 3") as caught:
        train("abcd", vocab_size=3)
    assert "set vocab_size: 4" in str(caught.value)


def test_training_on_nothing_is_an_error() -> None:
    with pytest.raises(DataError, match="no text"):
        train("")


def test_an_untrained_tokenizer_cannot_be_opened(tmp_path: Path) -> None:
    assert CharacterTokenizer.untrained(CharacterConfig())
    with pytest.raises(DataError, match="has to be trained first"):
        CharacterTokenizer.open(CharacterConfig(), tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"\xff\xfe",
        b"{}",
        b'{"characters": 5}',
        b'{"characters": ["a", "b"]}',
        b'{"characters": ""}',
        b'{"characters": "aa"}',
        b'{"characters": "\\ud800"}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_file_is_a_data_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(DataError, match=FILE):
        CharacterTokenizer.open(CharacterConfig(path=FILE), tmp_path)


def test_a_missing_file_is_a_data_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.json' does not exist"):
        CharacterTokenizer.open(CharacterConfig(path="gone.json"), tmp_path)


def test_the_file_is_plain_json(tmp_path: Path) -> None:
    train("ba").save(tmp_path)
    assert json.loads((tmp_path / FILE).read_bytes()) == {"characters": "ab"}
