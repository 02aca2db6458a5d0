"""The sentencepiece tokenizer against the library itself, on models trained here."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import example, given
from hypothesis import strategies as st

from lamina.core import ConfigProblem, DataError, LaminaError
from lamina.plugins.tokenizer.sentencepiece import FILE, SentencePieceConfig, SentencePieceTokenizer

TEXTS = [Path(json.__file__).read_text(encoding="utf-8"), "the cat sat on the mat, the rat sat on the cat. 😀 東京\n"]


def train(vocab_size: int = 400, **options: Any) -> SentencePieceTokenizer:
    return SentencePieceTokenizer.train(SentencePieceConfig(**options), TEXTS, vocab_size)


TRAINED = {model: train(model=model, special_tokens=["<|user|>"]) for model in ("unigram", "bpe")}
each = pytest.mark.parametrize("tokenizer", TRAINED.values(), ids=TRAINED)


def as_llama_2_has_it() -> bytes:
    """Normalised, a space before the text, <s> and </s>."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS[0].splitlines()), model_writer=written, vocab_size=400, model_type="bpe",
        byte_fallback=True, user_defined_symbols=["<tool>"], num_threads=1, minloglevel=2, hard_vocab_limit=False,
    )  # fmt: skip
    return written.getvalue()


PUBLISHED = as_llama_2_has_it()


@pytest.fixture
def published(tmp_path: Path) -> SentencePieceTokenizer:
    (tmp_path / "x.model").write_bytes(PUBLISHED)
    return SentencePieceTokenizer.open(SentencePieceConfig(path="x.model"), tmp_path)


@given(st.text(st.characters(codec="utf-8", exclude_characters="▁")))
@example(" \n\t  leading and trailing  \0\r\n")
@example("’ \u200d👩‍👩‍👧 ⁇ ▅ </s><unk><|user|>")
def test_every_text_without_its_mark_for_spaces_round_trips(text: str) -> None:
    for tokenizer in TRAINED.values():
        assert tokenizer.decode(tokenizer.encode(text)) == text


@each
def test_its_mark_for_spaces_comes_back_as_a_space(tokenizer: SentencePieceTokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode("a▁b")) == "a b"
    assert tokenizer.lossy


def test_ids_and_text_of_a_published_model_are_those_of_the_library(published: SentencePieceTokenizer) -> None:
    theirs = sentencepiece.SentencePieceProcessor(model_proto=PUBLISHED)
    for text in ("def __init__(self):", "  two  spaces é 東\n\tx", "<tool> ½ ﬁ", ""):
        ids = published.encode(text)
        assert ids == theirs.encode(text)
        assert published.decode(ids) == theirs.decode(ids)
    assert (published.bos_id, published.eos_id) == (theirs.bos_id(), theirs.eos_id()) == (1, 2)
    assert published.vocab_size == theirs.vocab_size()
    assert published.special_ids == {"<unk>": 0, "<s>": 1, "</s>": 2}


@each
def test_special_tokens_are_text_unless_allowed(tokenizer: SentencePieceTokenizer) -> None:
    text = "the </s> cat<|user|>"
    special = set(tokenizer.special_ids.values())
    assert not special & set(tokenizer.encode(text))
    ids = tokenizer.encode(text, allow_special=True)
    assert [i for i in ids if i in special] == [tokenizer.special_ids[name] for name in ("</s>", "<|user|>")]
    assert tokenizer.decode(ids) == "the  cat"
    assert tokenizer.decode(ids, skip_special=False) == text


@each
def test_a_text_streams_as_it_decodes(tokenizer: SentencePieceTokenizer, published: SentencePieceTokenizer) -> None:
    text = "the 東京 😀😀 sat\n  é"
    for one in (tokenizer, published):
        ids = one.encode(text)
        decoder = one.stream()
        pieces = [*map(decoder.push, ids), decoder.finish()]
        assert "".join(pieces) == one.decode(ids)
        assert not any("\ufffd" in piece for piece in pieces)


@each
def test_saved_and_opened_it_is_the_same(tokenizer: SentencePieceTokenizer, tmp_path: Path) -> None:
    config = tokenizer.save(tmp_path)
    opened = SentencePieceTokenizer.open(config, tmp_path)
    text = "the 東京 </s> 😀<|user|>\n"
    assert opened.encode(text) == tokenizer.encode(text)
    assert opened.encode(text, allow_special=True) == tokenizer.encode(text, allow_special=True)
    assert (opened.special_ids, opened.eos_id, opened.bos_id) == (tokenizer.special_ids, tokenizer.eos_id, None)
    assert sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / FILE)).encode(text) == opened.encode(text)
    assert SentencePieceTokenizer.untrained(SentencePieceConfig())
    assert not SentencePieceTokenizer.untrained(config)


def test_training_repeats_and_says_nothing(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for model in ("unigram", "bpe"):
        first, second = (train(model=model)._model.serialized_model_proto() for _ in range(2))
        assert first == second
    assert capfd.readouterr() == ("", "")


@each
def test_training_learns_pieces_and_keeps_to_the_size(tokenizer: SentencePieceTokenizer) -> None:
    assert len(tokenizer.encode(TEXTS[0])) < len(TEXTS[0]) / 1.3
    assert tokenizer.vocab_size <= 400
    assert max(map(len, tokenizer.token_texts(tokenizer.encode(TEXTS[0])))) > 3


@each
def test_an_indent_is_few_pieces(tokenizer: SentencePieceTokenizer) -> None:
    assert len(tokenizer.encode(" " * 16)) <= 4  # as often as json's source indents by 4 and by 8


def test_pieces_are_shown_with_their_spaces_and_known_as_bytes(published: SentencePieceTokenizer) -> None:
    ids = published.encode("the ☃")
    assert published.token_bytes(ids)[-3:] == ["☃".encode()[i : i + 1] for i in range(3)]
    assert b"".join(piece or b"" for piece in published.token_bytes(ids)) == " the ☃".encode()
    assert "".join(published.token_texts(ids)) == " the <0xE2><0x98><0x83>"
    assert published.token_bytes([0, 2, 5000]) == [None] * 3


def test_ids_without_a_piece_stand_for_no_text(published: SentencePieceTokenizer) -> None:
    ids = published.encode("the cat")
    assert published.decode([*ids, 5000, -3]) == "the cat"
    assert published.decode([*ids, 5000], skip_special=False) == "the cat"


@pytest.mark.parametrize("content", [b"", b"junk", b"\x80\x04pickle", PUBLISHED[:1000], PUBLISHED[:-5], b"\n\xff\xff"])
def test_a_damaged_file_is_a_data_error_that_names_it(
    tmp_path: Path, content: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.model").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.model"):
        SentencePieceTokenizer.open(SentencePieceConfig(path="x.model"), tmp_path)
    assert capfd.readouterr() == ("", "")


def test_what_cannot_be_used_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="vocab_size is 258; 256 bytes and 2 special tokens"):
        train(258)
    with pytest.raises(DataError, match="no vocabulary could be trained"):
        train(259)
    with pytest.raises(DataError, match="no text"):
        SentencePieceTokenizer.train(SentencePieceConfig(), ["", "\n"], 400)
    with pytest.raises(DataError, match="half a surrogate pair"):
        TRAINED["bpe"].encode("\ud800")
    with pytest.raises(DataError, match="has to be trained first"):
        SentencePieceTokenizer.open(SentencePieceConfig(), tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        SentencePieceTokenizer.open(SentencePieceConfig(path="x.model"), tmp_path)
    (tmp_path / "x.model").write_bytes(PUBLISHED)
    with pytest.raises(DataError, match="`model` is not for"):
        SentencePieceTokenizer.open(SentencePieceConfig(path="x.model", model="bpe"), tmp_path)
    with pytest.raises(DataError, match="no special token '<a>'"):
        SentencePieceTokenizer.open(SentencePieceConfig(path="x.model", special_tokens=["<a>"]), tmp_path)
    with pytest.raises(ConfigProblem, match="distinct"):
        SentencePieceConfig(special_tokens=["</s>"]).derive()


def test_without_the_library_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(LaminaError, match="needs the package sentencepiece") as caught:
        train()
    assert "pip install 'lamina[sentencepiece]'" in str(caught.value)
