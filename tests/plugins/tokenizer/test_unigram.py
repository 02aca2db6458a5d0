"""The unigram tokenizer: trained here, and cutting as the model says, the likeliest way."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import tokenizers
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import models

from lamina.core import DataError
from lamina.plugins.tokenizer.unigram import UnigramConfig, UnigramTokenizer

TEXTS = [Path(json.__file__).read_text(encoding="utf-8"), "the cat sat on the mat, the rat sat on the cat. 😀 東京\n"]
TRAINED = UnigramTokenizer.train(UnigramConfig(special_tokens=["<|user|>"]), TEXTS, 320)
VOCAB: dict[str, float] = dict(json.loads(TRAINED._tokenizer.to_str())["model"]["vocab"])


@given(st.text())
@example(" \n\t  leading and trailing  ")
@example("’ \u200d👩‍👩‍👧 \0 \ufffd ▁ <|endoftext|><|user|>")
def test_every_text_round_trips_though_training_saw_few_characters(text: str) -> None:
    ids = TRAINED.encode(text)
    assert TRAINED.decode(ids) == text
    assert not set(ids) & set(TRAINED.special_ids.values())


def likeliest(word: str) -> float:
    """The best sum of log-probabilities over all ways to cut `word`, by trying each last piece."""
    best = [0.0] + [-math.inf] * len(word)
    for end in range(1, len(word) + 1):
        for start in range(end):
            if word[start:end] in VOCAB:
                best[end] = max(best[end], best[start] + VOCAB[word[start:end]])
    return best[-1]


@pytest.mark.parametrize("word", ["the", "cat", "matsat", "zzz", "thethe", "sonthecat"])
def test_a_word_is_cut_in_the_likeliest_way(word: str) -> None:
    pieces = TRAINED.token_texts(TRAINED.encode(word))
    assert "".join(pieces) == word
    assert sum(VOCAB[piece] for piece in pieces) == pytest.approx(likeliest(word))


def test_training_learns_pieces_and_keeps_to_the_size() -> None:
    assert len(TRAINED.encode(TEXTS[0])) < len(TEXTS[0]) / 1.5
    assert max(map(len, TRAINED.token_texts(TRAINED.encode(TEXTS[0])))) > 2
    assert TRAINED.vocab_size <= 320
    assert UnigramTokenizer.train(UnigramConfig(), TEXTS, 257).vocab_size == 257


def test_training_twice_gives_one_vocabulary_and_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    first, second = (UnigramTokenizer.train(UnigramConfig(), TEXTS, 320)._tokenizer.to_str() for _ in range(2))
    assert first == second
    assert capfd.readouterr() == ("", "")


def test_special_tokens_have_the_first_ids_and_are_no_text() -> None:
    assert TRAINED.special_ids == {"<|endoftext|>": 0, "<|user|>": 1}
    assert (TRAINED.bos_id, TRAINED.eos_id) == (None, 0)
    assert TRAINED.encode("<|user|>", allow_special=True) == [1]


def test_a_word_of_the_corpus_that_is_a_special_token_stays_a_word() -> None:
    tokenizer = UnigramTokenizer.train(UnigramConfig(special_tokens=["the"]), TEXTS, 320)
    assert tokenizer.special_ids["the"] not in tokenizer.encode("the cat")
    assert tokenizer.decode(tokenizer.encode("the cat")) == "the cat"


def test_saved_and_opened_it_is_the_same(tmp_path: Path) -> None:
    opened = UnigramTokenizer.open(TRAINED.save(tmp_path), tmp_path)
    for allow in (False, True):
        text = "the cat<|user|> ☃ <|endoftext|>"
        assert opened.encode(text, allow_special=allow) == TRAINED.encode(text, allow_special=allow)
    assert (opened.special_ids, opened.eos_id, opened.vocab_size) == (TRAINED.special_ids, 0, TRAINED.vocab_size)
    assert not UnigramTokenizer.untrained(TRAINED.save(tmp_path))
    library = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert library.encode("the cat ☃").ids == TRAINED.encode("the cat ☃")


def test_what_cannot_be_used_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="takes at least 257"):
        UnigramTokenizer.train(UnigramConfig(), TEXTS, 256)
    with pytest.raises(DataError, match="no text"):
        UnigramTokenizer.train(UnigramConfig(), [], 300)
    with pytest.raises(DataError, match="has to be trained first"):
        UnigramTokenizer.open(UnigramConfig(), tmp_path)
    other = tokenizers.Tokenizer(models.BPE({"a": 0}, []))
    (tmp_path / "tokenizer.json").write_text(other.to_str())
    with pytest.raises(DataError, match="holds a BPE vocabulary, not Unigram"):
        UnigramTokenizer.open(UnigramConfig(path="tokenizer.json"), tmp_path)
