"""The wordpiece tokenizer: trained here or from a vocab.txt, compared with transformers' BERT."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.core import DataError
from lamina.plugins.tokenizer.wordpiece import WordPieceConfig, WordPieceTokenizer

TEXTS = ["the cat sat on the mat, the rat sat on the cat.\n", "Über die Brücke, naïve\n"] * 5
LINES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s", "##ing", ",", "naive", "Naïve", "##1"]


def train(vocab_size: int = 60, **options: Any) -> WordPieceTokenizer:
    return WordPieceTokenizer.train(WordPieceConfig(**options), TEXTS, vocab_size)


TRAINED = train(special_tokens=["<|user|>"])


def from_lines(directory: Path, **options: Any) -> WordPieceTokenizer:
    (directory / "vocab.txt").write_text("\n".join(LINES) + "\n", encoding="utf-8")
    return WordPieceTokenizer.open(WordPieceConfig(path="vocab.txt", **options), directory)


def longest_first(word: str) -> list[int]:
    """The paper's greedy cutting."""
    ids, start = [], 0
    while start < len(word):
        ends = [end for end in range(len(word), start, -1) if ("##" if start else "") + word[start:end] in LINES]
        if not ends:
            return [LINES.index("[UNK]")]
        ids.append(LINES.index(("##" if start else "") + word[start : ends[0]]))
        start = ends[0]
    return ids


@given(st.lists(st.text("thecasing1", min_size=1, max_size=8), max_size=5))
def test_words_are_cut_greedily_from_the_left(tmp_path_factory: pytest.TempPathFactory, words: list[str]) -> None:
    tokenizer = from_lines(tmp_path_factory.getbasetemp())
    assert tokenizer.encode(" ".join(words)) == [i for word in words for i in longest_first(word)]


@pytest.mark.parametrize("lowercase", [True, False])
def test_a_vocab_txt_gives_the_ids_that_transformers_gives(tmp_path: Path, lowercase: bool) -> None:
    transformers = pytest.importorskip("transformers")
    ours = from_lines(tmp_path, lowercase=lowercase)
    theirs = transformers.BertTokenizer(str(tmp_path / "vocab.txt"), do_lower_case=lowercase)
    for text in ("the cats,catsing", "THE Naïve  cat\n\nx", "cat1 \u4e2d\0 [SEP]"):
        assert ours.encode(text, allow_special=True) == theirs.encode(text, add_special_tokens=False)
    assert ours.special_ids == {name: LINES.index(name) for name in LINES[:5]}


def test_special_tokens_are_text_unless_allowed(tmp_path: Path) -> None:
    for tokenizer, name in ((TRAINED, "<|user|>"), (TRAINED, "<|endoftext|>"), (from_lines(tmp_path), "[SEP]")):
        special = tokenizer.special_ids[name]
        assert special not in tokenizer.encode(f"the {name} cat")
        assert special in tokenizer.encode(f"the {name} cat", allow_special=True)


def test_words_come_back_with_single_spaces_and_the_unknown_is_shown() -> None:
    assert TRAINED.decode(TRAINED.encode("the  cat\nsat")) == "the cat sat"
    assert TRAINED.decode(TRAINED.encode("the ☃ cat")) == "the [UNK] cat"
    assert TRAINED.lossy


def test_lower_case_is_on_request() -> None:
    assert train(lowercase=True).encode("THE ÜBER") == train(lowercase=True).encode("the uber")
    assert train().encode("THE") != train().encode("the")


def test_saved_and_opened_it_is_the_same(tmp_path: Path) -> None:
    for number, tokenizer in enumerate((TRAINED, train(lowercase=True), from_lines(tmp_path, lowercase=True))):
        folder = tmp_path / str(number)
        folder.mkdir()
        opened = WordPieceTokenizer.open(tokenizer.save(folder), folder)
        text = "The cats <|user|> ☃[SEP] <|endoftext|>"
        assert opened.encode(text) == tokenizer.encode(text)
        assert opened.encode(text, allow_special=True) == tokenizer.encode(text, allow_special=True)
        assert (opened.special_ids, opened.eos_id) == (tokenizer.special_ids, tokenizer.eos_id)
        assert opened.decode(tokenizer.encode(text)) == tokenizer.decode(tokenizer.encode(text))


def test_training_keeps_to_the_size_and_repeats() -> None:
    assert all(train(size).vocab_size <= size for size in (4, 8, 30))
    assert train(50).vocab_size == 50
    assert train(8).token_texts(train(8).encode("t a zebra")) == ["t", "a", "[UNK]"]
    assert train().token_texts(train().encode("the cat")) == ["the", "cat"]
    assert train()._tokenizer.to_str() == train()._tokenizer.to_str()
    assert (TRAINED.bos_id, TRAINED.eos_id) == (None, TRAINED.special_ids["<|endoftext|>"])


def test_what_cannot_be_used_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="vocab_size is 3; a WordPiece vocabulary takes at least 4"):
        train(3)
    with pytest.raises(DataError, match="no text"):
        WordPieceTokenizer.train(WordPieceConfig(), [""], 60)
    (tmp_path / "vocab.txt").write_text("a\nb\n")
    with pytest.raises(DataError, match=r"vocab\.txt' is no WordPiece vocabulary: it has no line \[UNK\]"):
        WordPieceTokenizer.open(WordPieceConfig(path="vocab.txt"), tmp_path)
    (tmp_path / "vocab.txt").write_bytes(b"[UNK]\n\xff\n")
    with pytest.raises(DataError, match=r"vocab\.txt' is no vocabulary: it is not UTF-8"):
        WordPieceTokenizer.open(WordPieceConfig(path="vocab.txt"), tmp_path)
    with pytest.raises(DataError, match="has to be trained first"):
        WordPieceTokenizer.open(WordPieceConfig(), tmp_path)


def test_lower_case_is_no_option_of_a_file_that_says_so_itself(tmp_path: Path) -> None:
    config = TRAINED.save(tmp_path)
    with pytest.raises(DataError, match="`lowercase` is not for"):
        WordPieceTokenizer.open(config.model_copy(update={"lowercase": True}), tmp_path)


def test_special_tokens_named_beside_it_are_special(tmp_path: Path) -> None:
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"additional_special_tokens": ["cat"]}))
    tokenizer = from_lines(tmp_path)
    assert LINES.index("cat") not in tokenizer.encode("the cat")
    assert LINES.index("cat") in tokenizer.encode("the cat", allow_special=True)
