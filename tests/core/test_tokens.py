"""Tokenizers found by whatever they are called, and what is told of a cut text."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers

from lamina.core.build import build
from lamina.core.component import dump_config
from lamina.core.errors import DataError, SpecError
from lamina.core.files import write_atomically
from lamina.core.model import Model, save
from lamina.core.registry import load_plugins
from lamina.core.resolve import resolve_data
from lamina.core.tokens import cut, find_tokenizer, read_text
from lamina.core.train import create_run
from lamina.plugins.tokenizer.bpe import BPEConfig, BPETokenizer
from lamina.plugins.tokenizer.character import CharacterConfig, CharacterTokenizer
from lamina.plugins.tokenizer.sentencepiece import SentencePieceConfig, SentencePieceTokenizer
from lamina.plugins.tokenizer.wordpiece import WordPieceConfig, WordPieceTokenizer

REGISTRY = load_plugins(only=[])
TEXTS = ["the cat sat on the mat, the rat sat on the cat; they chatted about that hat.\n"] * 3
BPE = BPETokenizer.train(BPEConfig(), TEXTS, 280)
SPEC: dict[str, Any] = {
    "lamina": 1,
    "dim": 8,
    "vocab_size": 280,
    "context_length": 8,
    "norm": "rms",
    "block": {"attention": {"name": "gqa", "n_heads": 2}, "ffn": "mlp"},
    "layers": 1,
}


def found(source: Any) -> tuple[str, list[int]]:
    """(its component, the ids of a text)"""
    _, component, tokenizer = find_tokenizer(source, REGISTRY)
    return component, tokenizer.encode("the cat")


def test_a_run_and_a_model_directory_have_the_tokenizer_of_their_spec(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("".join(TEXTS) * 3)
    run = create_run(resolve_data({**SPEC, "tokenizer": "bpe"}), text, tmp_path / "run")
    assert run.tokenizer is not None
    expected = ("bpe", run.tokenizer.encode("the cat"))
    save(Model(build(run.spec), run.tokenizer, run.spec), tmp_path / "model")
    for name in ("run", "model", "run/spec.yaml"):
        assert found(str(tmp_path / name)) == expected


def test_a_tokenizer_directory_and_its_file_are_opened_by_the_component_that_knows_them(tmp_path: Path) -> None:
    expected = BPE.encode("the cat")
    BPE.save(tmp_path)
    assert found(str(tmp_path)) == found(str(tmp_path / "tokenizer.json")) == ("tokenizer_json", expected)
    BPE._tokenizer.model.save(str(tmp_path))
    assert found(str(tmp_path)) == ("tokenizer_json", expected)  # it says more than the two files beside it
    assert found(str(tmp_path / "vocab.json")) == ("bpe", expected)
    (tmp_path / "tokenizer.json").unlink()
    assert found(str(tmp_path)) == ("bpe", expected)


def test_files_of_each_kind_are_known_by_name_or_by_how_they_begin(tmp_path: Path) -> None:
    pieces = SentencePieceTokenizer.train(SentencePieceConfig(model="bpe"), TEXTS, 290)
    pieces.save(tmp_path)
    assert found(str(tmp_path)) == ("sentencepiece", pieces.encode("the cat"))
    (tmp_path / "tokenizer.model").rename(tmp_path / "x.model.v3")
    assert found(str(tmp_path / "x.model.v3"))[0] == "sentencepiece"
    ranks = "".join(f"{base64.b64encode(bytes([i])).decode()} {i}\n" for i in range(256))
    for name in ("x.tiktoken", "llama.model"):
        (tmp_path / name).write_text(ranks)
        assert found(str(tmp_path / name)) == ("tiktoken", list(b"the cat"))
    (tmp_path / "vocab.txt").write_text("[UNK]\nthe\ncat\n")
    assert found(str(tmp_path / "vocab.txt")) == ("wordpiece", [1, 2])
    CharacterTokenizer.train(CharacterConfig(), ["the cat"], 10).save(tmp_path)
    assert found(str(tmp_path / "characters.json"))[0] == "character"


def test_a_name_a_mapping_and_a_spec_are_tokenizers_too(tmp_path: Path) -> None:
    assert found("byte")[1] == found("lamina:byte")[1] == list(b"the cat")
    config = BPE.save(tmp_path)
    raw = {"name": "bpe", **dump_config(config), "path": str(tmp_path / "tokenizer.json")}
    assert found(raw) == ("bpe", BPE.encode("the cat"))
    spec = tmp_path / "mine.yaml"
    write_atomically(spec, json.dumps({**SPEC, "tokenizer": {"name": "bpe", "path": "tokenizer.json"}}))
    assert found(str(spec)) == ("bpe", BPE.encode("the cat"))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", r"(?s)'nowhere': no such file or directory, and neither.*tokenizers: .*byte.*specs: .*demo"),
        ("", "no tokenizer is named"),
        ("a\0b", "no such file"),
        ("x" * 5000, "no such file"),
        ("bpe", "bpe: tokenizer 'bpe' has no vocabulary until it is trained"),
        ("demo", r"(?s)demo: its tokenizer 'bpe' has no vocabulary until it is trained.*run directory"),
        ("gpt2", "gpt2: its spec names no tokenizer|no vocabulary"),
        ({"name": "bpe"}, "has no vocabulary until it is trained"),
        ({"name": "bpe", "path": "nowhere.json"}, "nowhere.json' does not exist"),
    ],
)
def test_what_is_no_tokenizer_is_told_with_what_was_tried(source: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        find_tokenizer(source, REGISTRY)


def test_a_directory_or_a_file_that_nobody_opens_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no file that a tokenizer opens(?s:.*)tried: bpe, byte"):
        find_tokenizer(str(tmp_path), REGISTRY)
    (tmp_path / "x.bin").write_bytes(b"")
    (tmp_path / "y.model").write_bytes(b"\x80")
    for name in ("x.bin", "y.model"):
        with pytest.raises(DataError, match="is no file that a tokenizer opens by its name"):
            find_tokenizer(str(tmp_path / name), REGISTRY)


def test_a_directory_that_two_components_open_is_told_with_both(tmp_path: Path) -> None:
    CharacterTokenizer.train(CharacterConfig(), ["ab"], 10).save(tmp_path)
    (tmp_path / "vocab.txt").write_text("[UNK]\n")
    with pytest.raises(DataError, match=r"character \(characters\.json\) or wordpiece \(vocab\.txt\)"):
        find_tokenizer(str(tmp_path), REGISTRY)


def test_a_broken_option_is_told_as_in_a_spec() -> None:
    with pytest.raises(SpecError, match="no tokenizer is called 'bep'"):
        find_tokenizer({"name": "bep"}, REGISTRY)


def test_rates_are_counts_of_the_text_and_its_ids() -> None:
    text = "the cat\nsät"
    byte, bpe = cut(text, ["byte", {"name": "byte"}], registry=REGISTRY)
    assert byte.ids == bpe.ids == list(text.encode())
    assert (byte.characters, byte.words, byte.bytes, byte.vocab_size) == (11, 3, 12, 257)
    assert byte.per(byte.characters) == 12 / 11
    assert byte.per(byte.words) == 4
    assert byte.bytes_per_token == 1
    assert byte.comes_back
    assert byte.to_json() == {"ids": byte.ids, "tokens": byte.tokens}
    (nothing,) = cut("", ["byte"], registry=REGISTRY)
    assert (nothing.per(nothing.words), nothing.bytes_per_token, nothing.ids) == (None, None, [])


def test_special_tokens_are_text_unless_allowed() -> None:
    text = "a<|endoftext|>"
    (plain,) = cut(text, ["byte"], registry=REGISTRY)
    (special,) = cut(text, ["byte"], allow_special=True, registry=REGISTRY)
    assert plain.ids == list(text.encode())
    assert special.ids == [97, 256]
    assert special.tokens == ["a", "<|endoftext|>"]
    assert special.comes_back


def test_a_cut_that_loses_something_says_so(tmp_path: Path) -> None:
    library = tokenizers.Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    (tmp_path / "tokenizer.json").write_text(library.to_str())
    (one,) = cut("a  b", [str(tmp_path)], registry=REGISTRY)
    assert not one.comes_back


def test_a_text_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "text"
    file.write_bytes(b"a\r\n\xc3\xa9")
    assert read_text(str(file)) == "a\r\né"
    file.write_bytes(b"ab\xff")
    for source, message in (
        (file, r"not UTF-8 \(byte 2\)"),
        (tmp_path, "a directory"),
        (tmp_path / "no", "No such file"),
    ):
        with pytest.raises(DataError, match=message):
            read_text(str(source))
    with pytest.raises(DataError, match="cannot be read"):
        read_text("a\0b")
    with file.open("wb") as opened:
        opened.truncate(1 << 40)  # sparse: it takes no room, and reading it would take all there is
    with pytest.raises(DataError, match="more than 268,435,456 bytes"):
        read_text(str(file))


def test_words_that_wordpiece_trains_are_found_in_its_directory(tmp_path: Path) -> None:
    WordPieceTokenizer.train(WordPieceConfig(), TEXTS, 60).save(tmp_path)
    assert found(str(tmp_path))[0] == "tokenizer_json"
