"""The word tokenizer: the most frequent words, every character of white space, and one token for all else."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.core import DataError
from lamina.plugins.tokenizer.word import PIECES, UNKNOWN, WordConfig, WordTokenizer

TEXTS = ["the cat sat on the mat, the rat.\n", "Über die 東京 cat!\t\n"]
TRAINED = WordTokenizer.train(WordConfig(), TEXTS, 100)


@given(st.lists(st.sampled_from(["the", "cat", " ", "\n", "\t", ",", ".", "東京", "Über", "!"])))
def test_a_text_of_known_words_comes_back(words: list[str]) -> None:
    text = "".join(words)
    if re.search(r"\w{2,}", text) and not set(re.findall(PIECES["word"], text)) <= set(TRAINED._tokenizer.get_vocab()):
        return  # two words side by side are another word
    assert TRAINED.decode(TRAINED.encode(text)) == text


def test_a_word_that_is_not_known_is_shown_as_such_and_its_neighbours_stay() -> None:
    assert TRAINED.decode(TRAINED.encode("the dog,\nthe rat")) == f"the {UNKNOWN},\nthe rat"
    assert TRAINED.lossy


@pytest.mark.parametrize("split", ["word", "white_space"])
def test_the_vocabulary_is_the_most_frequent_words_in_their_order(split: str) -> None:
    tokenizer = WordTokenizer.train(WordConfig(split=split), TEXTS * 3, 8)
    counts = Counter(word for text in TEXTS for word in re.findall(PIECES[split], text))
    expected = sorted(counts, key=lambda word: (-counts[word], word))[:6]
    assert tokenizer.token_texts(range(8)) == ["<|endoftext|>", UNKNOWN, *expected]
    assert tokenizer.vocab_size == 8


def test_marks_are_words_or_parts_of_them() -> None:
    assert TRAINED.token_texts(TRAINED.encode("mat, rat.")) == ["mat", ",", " ", "rat", "."]
    other = WordTokenizer.train(WordConfig(split="white_space"), TEXTS, 100)
    assert other.token_texts(other.encode("mat, rat.")) == ["mat,", " ", "rat."]


@pytest.mark.parametrize("split", ["word", "white_space"])
def test_special_tokens_in_the_corpus_or_the_text_are_text(split: str) -> None:
    texts = ["the <|endoftext|> <|endoftext|> user user end"] * 3
    tokenizer = WordTokenizer.train(WordConfig(split=split, special_tokens=["user"]), texts, 50)
    assert tokenizer.special_ids == {"<|endoftext|>": 0, "user": 1}
    assert not {0, 1} & set(tokenizer.encode(texts[0]))
    assert {0, 1} <= set(tokenizer.encode(texts[0], allow_special=True))
    assert (tokenizer.bos_id, tokenizer.eos_id) == (None, 0)


def test_saved_and_opened_it_is_the_same(tmp_path: Path) -> None:
    for split in ("word", "white_space"):
        tokenizer = WordTokenizer.train(WordConfig(split=split, special_tokens=["<|user|>"]), TEXTS, 100)
        opened = WordTokenizer.open(tokenizer.save(tmp_path), tmp_path)
        text = "the cat,  dog<|user|> Über\n<|endoftext|>"
        assert opened.encode(text) == tokenizer.encode(text)
        assert opened.encode(text, allow_special=True) == tokenizer.encode(text, allow_special=True)
        assert opened.special_ids == tokenizer.special_ids


def test_what_cannot_be_used_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no text"):
        WordTokenizer.train(WordConfig(), [], 50)
    with pytest.raises(DataError, match="takes at least 3"):
        WordTokenizer.train(WordConfig(), TEXTS, 2)
    with pytest.raises(DataError, match="has to be trained first"):
        WordTokenizer.open(WordConfig(), tmp_path)
    config = TRAINED.save(tmp_path)
    with pytest.raises(DataError, match="`split` is not for"):
        WordTokenizer.open(config.model_copy(update={"split": "word"}), tmp_path)
