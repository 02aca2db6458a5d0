"""The bpe tokenizer: trained here, or any tokenizer.json, compared with transformers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import AddedToken, models, normalizers, pre_tokenizers

from lamina.core import ConfigProblem, DataError
from lamina.core import tokenizer as tokenizer_module
from lamina.plugins.tokenizer.bpe import END_OF_TEXT, FILE, BPEConfig, BPETokenizer

TEXTS = ["the cat sat on the mat, the rat sat on the cat.\n", "Über die Brücke 😀 であるから\n"] * 5


def train(vocab_size: int = 300, **options: Any) -> BPETokenizer:
    return BPETokenizer.train(BPEConfig(**options), TEXTS, vocab_size)


TRAINED = train()


def write(directory: Path, tokenizer: tokenizers.Tokenizer) -> BPEConfig:
    (directory / FILE).write_text(tokenizer.to_str(), encoding="utf-8")
    return BPEConfig(path=FILE)


def words(*special: str) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "b": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
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


@pytest.mark.parametrize(
    ("special", "bos", "eos"),
    [
        (["<s>", "</s>"], "<s>", "</s>"),
        (["<pad>", "<eos>", "<bos>"], "<bos>", "<eos>"),
        (["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"], "<|begin_of_text|>", "<|end_of_text|>"),
        (["<|endoftext|>", "<|im_start|>", "<|im_end|>"], None, "<|endoftext|>"),
        (["<pad>"], None, None),
    ],
)
def test_begin_and_end_are_found_among_the_special_tokens(
    tmp_path: Path, special: list[str], bos: str | None, eos: str | None
) -> None:
    tokenizer = BPETokenizer.open(write(tmp_path, words(*special)), tmp_path)
    ids = tokenizer.special_ids
    assert tokenizer.bos_id == (None if bos is None else ids[bos])
    assert tokenizer.eos_id == (None if eos is None else ids[eos])


def test_an_added_token_that_is_not_special_ends_no_text(tmp_path: Path) -> None:
    plain = words()
    plain.add_tokens([AddedToken("</s>", special=False)])
    tokenizer = BPETokenizer.open(write(tmp_path, plain), tmp_path)
    assert tokenizer.eos_id is None
    assert tokenizer.special_ids == {}


def test_a_named_special_token_that_the_file_lacks_is_an_error(tmp_path: Path) -> None:
    config = write(tmp_path, words("<s>", "</s>"))
    with pytest.raises(DataError, match="no special token '<stop>'") as caught:
        BPETokenizer.open(config.model_copy(update={"end_of_text": "<stop>"}), tmp_path)
    assert "<s>, </s>" in str(caught.value)
    with pytest.raises(DataError, match=r"no special token '<\|user\|>'"):
        BPETokenizer.open(config.model_copy(update={"special_tokens": ["<|user|>"]}), tmp_path)


def test_the_vocabulary_counts_gaps_in_the_ids(tmp_path: Path) -> None:
    gapped = tokenizers.Tokenizer(models.WordLevel({"a": 0, "b": 40}, unk_token="a"))
    assert BPETokenizer.open(write(tmp_path, gapped), tmp_path).vocab_size == 41


def test_a_file_that_truncates_and_pads_loses_and_invents_nothing(tmp_path: Path) -> None:
    greedy = words("<pad>")
    greedy.enable_truncation(2)
    greedy.enable_padding(length=8, pad_token="<pad>", pad_id=3)
    assert BPETokenizer.open(write(tmp_path, greedy), tmp_path).encode("a b a b") == [1, 2, 1, 2]


def test_a_template_adds_nothing_to_the_ids(tmp_path: Path) -> None:
    template = words("<s>")
    template.post_processor = tokenizers.processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 3)])
    tokenizer = BPETokenizer.open(write(tmp_path, template), tmp_path)
    assert tokenizer.encode("a") == [1]
    assert tokenizer.encode("a", allow_special=True) == [1]


def test_a_text_the_file_cannot_encode_is_a_data_error(tmp_path: Path) -> None:
    no_unknown = tokenizers.Tokenizer(models.WordLevel({"a": 0}, unk_token="[UNK]"))
    no_unknown.normalizer = normalizers.NFC()
    tokenizer = BPETokenizer.open(write(tmp_path, no_unknown), tmp_path)
    with pytest.raises(DataError, match="cannot encode"):
        tokenizer.encode("b")


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


VALID = json.loads(words("<s>").to_str())


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
