"""The bpe tokenizer: trained here, from a tokenizer.json, or from vocab.json and merges.txt as GPT-2 has them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import AddedToken, models

from lamina.core import ConfigProblem, DataError
from lamina.core import tokenizer as tokenizer_module
from lamina.core.tokenizer import ENDS
from lamina.plugins.tokenizer.bpe import FILE, BPEConfig, BPETokenizer

END_OF_TEXT = ENDS[0]

TEXTS = ["the cat sat on the mat, the rat sat on the cat.\n", "Über die Brücke 😀 であるから\n"] * 5


def train(vocab_size: int = 300, **options: Any) -> BPETokenizer:
    return BPETokenizer.train(BPEConfig(**options), TEXTS, vocab_size)


TRAINED = train()


def write(directory: Path, tokenizer: tokenizers.Tokenizer) -> BPEConfig:
    (directory / FILE).write_text(tokenizer.to_str(), encoding="utf-8")
    return BPEConfig(path=FILE)


def letters(*special: str) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in special])
    return tokenizer


@given(st.text())
@example(" \n\t  leading and trailing  ")
@example("’ \u200d👩‍👩‍👧 \0 \ufffd ")
def test_every_text_round_trips_though_training_saw_few_characters(text: str) -> None:
    assert TRAINED.decode(TRAINED.encode(text)) == text


def test_training_merges_what_is_frequent() -> None:
    assert TRAINED.token_texts(TRAINED.encode("the the")) == ["the", " the"]
    assert len(TRAINED.encode(TEXTS[0])) < len(TEXTS[0]) / 1.5


def test_training_twice_gives_one_vocabulary_and_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    first, second = train()._plain.to_str(), train()._plain.to_str()
    assert first == second
    assert capfd.readouterr() == ("", "")


def test_the_vocabulary_is_no_larger_than_asked() -> None:
    assert train(vocab_size=257).vocab_size == 257
    assert TRAINED.vocab_size <= 300
    assert max(TRAINED.encode(TEXTS[0] + TEXTS[1])) < TRAINED.vocab_size


def test_a_vocabulary_without_room_for_the_bytes_is_an_error() -> None:
    with pytest.raises(DataError, match="vocab_size is 256; byte-level BPE takes at least 257"):
        train(vocab_size=256)
    with pytest.raises(DataError, match="at least 258"):
        train(vocab_size=257, special_tokens=["<|user|>"])


@given(st.sampled_from([END_OF_TEXT, "<|user|>"]), st.text(), st.text())
def test_special_tokens_in_the_text_are_text_unless_allowed(name: str, before: str, after: str) -> None:
    tokenizer = WITH_USER
    special = tokenizer.special_ids[name]
    text = before + name + after
    assert special not in tokenizer.encode(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert special in tokenizer.encode(text, allow_special=True)
    assert special not in tokenizer.encode(text)  # the other call has opened no door


WITH_USER = train(special_tokens=["<|user|>"])


def test_decode_leaves_special_tokens_out_unless_asked() -> None:
    ids = WITH_USER.encode(f"<|user|>hi{END_OF_TEXT}", allow_special=True)
    assert WITH_USER.decode(ids) == "hi"
    assert WITH_USER.decode(ids, skip_special=False) == f"<|user|>hi{END_OF_TEXT}"


def test_a_trained_vocabulary_ends_texts_with_the_token_its_config_names() -> None:
    assert TRAINED.eos_id == TRAINED.special_ids[END_OF_TEXT]
    assert TRAINED.bos_id is None
    other = train(end_of_text="<stop>")
    assert other.eos_id == other.special_ids["<stop>"]
    assert END_OF_TEXT not in other.special_ids


def test_saved_and_opened_it_is_the_same(tmp_path: Path) -> None:
    tokenizer = train(end_of_text="<stop>", special_tokens=["<|user|>"])
    config = tokenizer.save(tmp_path)
    assert BPETokenizer.untrained(BPEConfig())
    assert not BPETokenizer.untrained(config)
    opened = BPETokenizer.open(config, tmp_path)
    text = f"the cat{END_OF_TEXT}<|user|><stop>Brücke"
    assert opened.encode(text) == tokenizer.encode(text)
    assert opened.encode(text, allow_special=True) == tokenizer.encode(text, allow_special=True)
    assert (opened.eos_id, opened.vocab_size) == (tokenizer.eos_id, tokenizer.vocab_size)
    assert opened.special_ids == tokenizer.special_ids


def test_ids_equal_those_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    WITH_USER.save(tmp_path)
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / FILE))
    text = "the  cat<|user|> sat\n\non 😀 <|endoftext|>"
    assert WITH_USER.encode(text, allow_special=True) == theirs.encode(text, add_special_tokens=False)
    assert WITH_USER.encode(text) == theirs.encode(text, add_special_tokens=False, split_special_tokens=True)


def test_half_a_surrogate_pair_is_a_data_error() -> None:
    with pytest.raises(DataError, match=r"U\+DC80"):
        TRAINED.encode("a\udc80")


def test_ids_beyond_the_vocabulary_stand_for_no_text() -> None:
    ids = TRAINED.encode("cat")
    assert TRAINED.decode([*ids, 5000]) == "cat"


def test_special_tokens_must_be_distinct() -> None:
    with pytest.raises(ConfigProblem, match="distinct"):
        BPEConfig(special_tokens=[END_OF_TEXT]).derive()
    assert BPEConfig(special_tokens=["<a>", "<b>"]).derive() == {}


def test_an_error_of_the_corpus_comes_through_training() -> None:
    def texts() -> Iterator[str]:
        yield "fine"
        raise DataError("page 2 is torn")

    with pytest.raises(DataError, match="page 2 is torn"):
        BPETokenizer.train(BPEConfig(), texts(), 300)


VALID = json.loads(letters("<s>").to_str())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not json",
        b"\x80\x04pickle",
        b"{}",
        b"[1]",
        b"null",
        b'{"model": {"type": "BPE"}}',
        b"[" * 100_000,
        json.dumps({**VALID, "model": {"type": "Unheard"}}).encode(),
        json.dumps({**VALID, "model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["x y"]}}).encode(),
        json.dumps({**VALID, "model": {"type": "BPE", "vocab": {}, "merges": []}, "added_tokens": []}).encode(),
        json.dumps({**VALID, "model": {"type": "WordLevel", "vocab": {"a": -1}, "unk_token": "a"}}).encode(),
        json.dumps(VALID).encode()[:-20],
    ],
)
def test_a_damaged_file_is_a_data_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(DataError, match=FILE):
        BPETokenizer.open(BPEConfig(path=FILE), tmp_path)


def test_a_missing_or_odd_file_is_a_data_error_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.json' does not exist") as caught:
        BPETokenizer.open(BPEConfig(path="gone.json"), tmp_path)
    assert "relative to the file that names it" in str(caught.value)
    with pytest.raises(DataError, match="is not a file"):
        BPETokenizer.open(BPEConfig(path="."), tmp_path)
    with pytest.raises(DataError, match="has to be trained first"):
        BPETokenizer.open(BPEConfig(), tmp_path)


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / FILE).open("wb") as file:
        file.truncate(tokenizer_module.LARGEST_FILE + 1)  # sparse: it takes no room
    with pytest.raises(DataError, match="has 1,073,741,825 bytes"):
        BPETokenizer.open(BPEConfig(path=FILE), tmp_path)


def test_a_named_special_token_that_the_file_lacks_is_an_error(tmp_path: Path) -> None:
    config = write(tmp_path, letters("<s>", "</s>"))
    with pytest.raises(DataError, match="no special token '<stop>'") as caught:
        BPETokenizer.open(config.model_copy(update={"end_of_text": "<stop>"}), tmp_path)
    assert "<s>, </s>" in str(caught.value)
    with pytest.raises(DataError, match=r"no special token '<\|user\|>'"):
        BPETokenizer.open(config.model_copy(update={"special_tokens": ["<|user|>"]}), tmp_path)


def test_a_vocabulary_of_another_model_is_refused_with_the_component_that_opens_it(tmp_path: Path) -> None:
    other = tokenizers.Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    with pytest.raises(DataError, match="holds a WordLevel vocabulary, not BPE") as caught:
        BPETokenizer.open(write(tmp_path, other), tmp_path)
    assert "{name: tokenizer_json, path: tokenizer.json}" in str(caught.value)


def test_training_on_nothing_is_an_error() -> None:
    with pytest.raises(DataError, match="no text"):
        BPETokenizer.train(BPEConfig(), ["", ""], 300)


def as_gpt2_has_it(directory: Path, tokenizer: BPETokenizer = TRAINED) -> BPEConfig:
    """vocab.json and merges.txt, as tokenizers writes them."""
    (directory / FILE).write_text(tokenizer._tokenizer.to_str(), encoding="utf-8")
    tokenizers.Tokenizer.from_file(str(directory / FILE)).model.save(str(directory))
    (directory / FILE).unlink()
    return BPEConfig(path="vocab.json")


def test_vocab_json_and_merges_txt_give_the_ids_that_transformers_gives(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    opened = BPETokenizer.open(as_gpt2_has_it(tmp_path), tmp_path)
    theirs = transformers.GPT2Tokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))
    text = "the  cat sat\n\non Brücke 😀 東 don't <|endoftext|>"
    assert opened.encode(text, allow_special=True) == theirs.encode(text, add_special_tokens=False)
    assert opened.encode(text) == TRAINED.encode(text)
    assert opened.decode(opened.encode(text)) == text
    assert (opened.vocab_size, opened.eos_id) == (TRAINED.vocab_size, TRAINED.eos_id)


def test_saved_from_two_files_it_is_one_file_with_the_same_ids(tmp_path: Path) -> None:
    opened = BPETokenizer.open(as_gpt2_has_it(tmp_path), tmp_path)
    again = BPETokenizer.open(opened.save(tmp_path), tmp_path)
    assert again.encode("the cat 😀") == opened.encode("the cat 😀")
    assert again.special_ids == opened.special_ids


def test_special_tokens_named_beside_the_two_files_are_special(tmp_path: Path) -> None:
    config = as_gpt2_has_it(tmp_path, WITH_USER)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"additional_special_tokens": ["<|user|>"]}))
    assert BPETokenizer.open(config, tmp_path).special_ids == WITH_USER.special_ids


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("merges.txt", b"#version: 0.2\nno such", "line 2 of .*merges.txt' merges 'no such'"),
        ("merges.txt", b"t h x", "line 1 of .*merges.txt"),
        ("merges.txt", b"\xff\xfe", "merges.txt' is not UTF-8"),
        ("vocab.json", b'{"a": 0', "vocab.json' is not JSON"),
        ("vocab.json", b"[]", "vocab.json' is not a JSON object"),
        ("vocab.json", b"{}", "empty vocabulary|are not two pieces"),
        ("vocab.json", b'{"a": "b"}', "merges|the id of 'a' is 'b'"),
    ],
)
def test_damaged_vocab_or_merges_are_told(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    config = as_gpt2_has_it(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        BPETokenizer.open(config, tmp_path)


@pytest.mark.parametrize("ids", [{"a": -1}, {"a": 1 << 40}, {"a": True}, {"a": None}])
def test_an_id_that_is_none_is_told(tmp_path: Path, ids: dict[str, Any]) -> None:
    (tmp_path / "vocab.json").write_text(json.dumps(ids))
    (tmp_path / "merges.txt").write_text("")
    with pytest.raises(DataError, match="the id of 'a' is"):
        BPETokenizer.open(BPEConfig(path="vocab.json"), tmp_path)


def test_a_word_that_training_merged_into_a_special_token_stays_a_word() -> None:
    tokenizer = BPETokenizer.train(BPEConfig(special_tokens=["cat"]), ["cat cat the cat"] * 20, 300)
    special = tokenizer.special_ids["cat"]
    assert special not in tokenizer.encode("cat the cat")
    assert tokenizer.decode(tokenizer.encode("cat the cat")) == "cat the cat"
    assert special in tokenizer.encode("cat", allow_special=True)


def test_pieces_of_characters_are_shown_by_number_and_known_as_bytes() -> None:
    ids = TRAINED.encode("é 東")
    assert b"".join(piece or b"" for piece in TRAINED.token_bytes(ids)) == "é 東".encode()
    assert "".join(TRAINED.token_texts(TRAINED.encode("ế"))) == "<0xE1><0xBA><0xBF>"
    assert TRAINED.token_bytes([TRAINED.special_ids[END_OF_TEXT]]) == [None]
    assert not TRAINED.lossy
