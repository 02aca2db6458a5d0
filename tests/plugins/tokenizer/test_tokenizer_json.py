"""Any tokenizer.json, with what the files beside it say of special tokens, compared with transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from lamina.core import DataError
from lamina.plugins.tokenizer.tokenizer_json import TokenizerJSON, TokenizerJSONConfig

FILE = "tokenizer.json"
CONFIG = TokenizerJSONConfig(path=FILE)
BESIDE = ("tokenizer_config.json", "special_tokens_map.json")


def words(*special: str) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "b": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in special])
    return tokenizer


def opened(directory: Path, tokenizer: tokenizers.Tokenizer, **beside: Any) -> TokenizerJSON:
    """`beside`: tokenizer_config, special_tokens_map."""
    (directory / FILE).write_text(tokenizer.to_str(), encoding="utf-8")
    for name, data in beside.items():
        (directory / f"{name}.json").write_text(json.dumps(data), encoding="utf-8")
    return TokenizerJSON.open(CONFIG, directory)


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
    tokenizer = opened(tmp_path, words(*special))
    ids = tokenizer.special_ids
    assert tokenizer.bos_id == (None if bos is None else ids[bos])
    assert tokenizer.eos_id == (None if eos is None else ids[eos])


@pytest.mark.parametrize("file", ["tokenizer_config", "special_tokens_map"])
@pytest.mark.parametrize("shape", [str, lambda name: {"content": name, "lstrip": False}])
def test_the_files_beside_it_say_which_tokens_begin_and_end(tmp_path: Path, file: str, shape: Any) -> None:
    beside = {file: {"bos_token": shape("<pad>"), "eos_token": shape("a"), "pad_token": None}}
    tokenizer = opened(tmp_path, words("<s>", "</s>", "<pad>"), **beside)
    assert tokenizer.bos_id == tokenizer.special_ids["<pad>"]
    assert tokenizer.eos_id == tokenizer.special_ids["a"] == 1


def test_none_is_an_answer_and_the_config_is_heard_first(tmp_path: Path) -> None:
    beside = {"tokenizer_config": {"bos_token": None}, "special_tokens_map": {"bos_token": "<s>", "eos_token": "<pad>"}}
    tokenizer = opened(tmp_path, words("<s>", "</s>", "<pad>"), **beside)
    assert tokenizer.bos_id is None
    assert tokenizer.eos_id == tokenizer.special_ids["<pad>"]


@pytest.mark.parametrize("key", ["additional_special_tokens", "extra_special_tokens"])
def test_tokens_named_beside_it_are_special_and_no_text(tmp_path: Path, key: str) -> None:
    listed: Any = {"image_token": "b"} if key.startswith("extra") else ["b"]
    tokenizer = opened(tmp_path, words("</s>"), special_tokens_map={key: listed})
    assert tokenizer.special_ids == {"b": 2, "</s>": 3}
    assert tokenizer.encode("a b") == [1, 0]
    assert tokenizer.encode("a b", allow_special=True) == [1, 2]


def test_ids_and_special_tokens_are_those_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": {
            "__type": "AddedToken",
            "content": "</s>",
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
        },
        "added_tokens_decoder": {
            "3": {"content": "<s>", "special": True},
            "4": {"content": "</s>", "special": True},
            "5": {"content": "<tool>", "special": False, "normalized": False},
            "6": {"content": "<|user|>", "special": True},
        },
    }
    ours = opened(tmp_path, words("<s>", "</s>"), tokenizer_config=config)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    text = "a <s> b</s><tool> a <|user|>"
    assert ours.encode(text, allow_special=True) == theirs.encode(text, add_special_tokens=False)
    assert ours.encode(text) == theirs.encode(text, add_special_tokens=False, split_special_tokens=True)
    assert (ours.bos_id, ours.eos_id) == (theirs.bos_token_id, theirs.eos_token_id)
    assert set(ours.special_ids.values()) == set(theirs.all_special_ids) | {6}
    assert ours.vocab_size == len(theirs) == 7


def test_saved_and_opened_it_is_the_same(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for beside in ({}, {"tokenizer_config": {"bos_token": None, "eos_token": "<pad>"}}):
        tokenizer = opened(tmp_path, words("<s>", "</s>", "<pad>"), **beside)
        again = TokenizerJSON.open(tokenizer.save(other), other)
        assert (again.bos_id, again.eos_id) == (tokenizer.bos_id, tokenizer.eos_id)
        assert (again.special_ids, again.vocab_size) == (tokenizer.special_ids, tokenizer.vocab_size)
        text = "a b <s> b<pad>"
        assert again.encode(text, allow_special=True) == tokenizer.encode(text, allow_special=True)
        assert again.encode(text) == tokenizer.encode(text)


def test_an_added_token_that_is_not_special_ends_no_text(tmp_path: Path) -> None:
    plain = words()
    plain.add_tokens([AddedToken("</s>", special=False)])
    tokenizer = opened(tmp_path, plain)
    assert tokenizer.eos_id is None
    assert tokenizer.special_ids == {}


def test_the_vocabulary_counts_gaps_in_the_ids(tmp_path: Path) -> None:
    gapped = tokenizers.Tokenizer(models.WordLevel({"a": 0, "b": 40}, unk_token="a"))
    assert opened(tmp_path, gapped).vocab_size == 41


def test_a_file_that_truncates_and_pads_loses_and_invents_nothing(tmp_path: Path) -> None:
    greedy = words("<pad>")
    greedy.enable_truncation(2)
    greedy.enable_padding(length=8, pad_token="<pad>", pad_id=3)
    assert opened(tmp_path, greedy).encode("a b a b") == [1, 2, 1, 2]


def test_a_template_adds_nothing_to_the_ids(tmp_path: Path) -> None:
    template = words("<s>")
    template.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 3)])
    tokenizer = opened(tmp_path, template)
    assert tokenizer.encode("a") == [1]
    assert tokenizer.encode("a", allow_special=True) == [1]


def test_a_text_the_file_cannot_encode_is_a_data_error(tmp_path: Path) -> None:
    no_unknown = tokenizers.Tokenizer(models.WordLevel({"a": 0}, unk_token="[UNK]"))
    no_unknown.normalizer = normalizers.NFC()
    with pytest.raises(DataError, match="cannot encode"):
        opened(tmp_path, no_unknown).encode("b")


def unigram() -> tokenizers.Tokenizer:
    """As converted from SentencePiece: </s> is a piece like any other, with the best score of all."""
    letters = [(letter, -3.0) for letter in "<>/sabunk"]
    tokenizer = tokenizers.Tokenizer(models.Unigram([("<unk>", 0.0), ("</s>", 0.0), ("▁", -2.0), *letters], unk_id=0))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer.add_special_tokens(["</s>", "<unk>"])
    return tokenizer


def word_level() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.WordLevel({"<unk>": 0, "</s>": 1, "a": 2}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["</s>"])
    return tokenizer


def word_piece() -> tokenizers.Tokenizer:
    vocab = {"<unk>": 0, "</s>": 1, "a": 2, "##</s>": 3}
    tokenizer = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["</s>"])
    return tokenizer


def merged(ignore_merges: bool) -> tokenizers.Tokenizer:
    merges = [] if ignore_merges else [("<", "/"), ("</", "s"), ("</s", ">"), ("</s>", "a")]
    vocab = {token: i for i, token in enumerate(["<", "</s>", "/", "s", ">", "a", "</", "</s", "</s>a"])}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab, merges, ignore_merges=ignore_merges))
    tokenizer.add_special_tokens(["</s>"])
    return tokenizer


MODELS = {
    "Unigram": unigram(),
    "WordLevel": word_level(),
    "WordPiece": word_piece(),
    "BPE": merged(False),
    "BPE, whole words first": merged(True),
}


@pytest.mark.parametrize("name", MODELS)
def test_no_text_spells_a_special_token_though_it_is_a_piece_of_the_model(tmp_path: Path, name: str) -> None:
    library = MODELS[name]
    library.encode_special_tokens = True  # the library's own switch does not reach the model's pieces
    assert 1 in library.encode("a </s> a").ids or 1 in library.encode("</s>").ids
    tokenizer = opened(tmp_path, library)
    assert tokenizer.special_ids["</s>"] == 1
    for text in ("</s>", "a </s> a", "</s>a", "a</s>"):
        assert 1 not in tokenizer.encode(text)
        assert 1 in tokenizer.encode(text, allow_special=True)
        assert 1 not in tokenizer.encode(text)


def test_text_without_special_tokens_has_the_ids_of_the_library(tmp_path: Path) -> None:
    for library in MODELS.values():
        tokenizer = opened(tmp_path, library)
        for text in ("a s a", "b", "as"):
            assert tokenizer.encode(text) == library.encode(text, add_special_tokens=False).ids


@given(st.text("</s>abunk ", max_size=12))
def test_a_unigram_text_round_trips_with_pieces_for_all_its_letters(tmp_path_factory: Any, text: str) -> None:
    tokenizer = opened(tmp_path_factory.getbasetemp(), unigram())
    assert 1 not in tokenizer.encode(text)
    assert tokenizer.decode(tokenizer.encode(text)).strip() == text.strip()


def test_spelt_bytes_and_spaces_are_known_as_bytes_and_shown(tmp_path: Path) -> None:
    vocab = {"<unk>": 0, "▁": 1, "▁a": 2, "a": 3} | {f"<0x{byte:02X}>": 4 + byte for byte in range(256)}
    library = tokenizers.Tokenizer(models.BPE(vocab, [("▁", "a")], unk_token="<unk>", byte_fallback=True))
    library.normalizer = normalizers.Replace(" ", "▁")
    library.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer = opened(tmp_path, library)
    ids = tokenizer.encode("a é a")
    assert tokenizer.token_texts(ids) == ["a", " ", "<0xC3>", "<0xA9>", " a"]
    assert tokenizer.token_bytes(ids) == [b"a", b" ", b"\xc3", b"\xa9", b" a"]
    assert tokenizer.lossy


def test_what_keeps_every_text_says_so(tmp_path: Path) -> None:
    library = tokenizers.Tokenizer(
        models.BPE({letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, [])
    )
    library.decoder = decoders.ByteLevel()
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert not opened(tmp_path, library).lossy
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    assert opened(tmp_path, library).lossy
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.normalizer = normalizers.NFC()
    assert opened(tmp_path, library).lossy


@pytest.mark.parametrize("name", BESIDE)
@pytest.mark.parametrize(
    "content", [b"{", b"[]", b'{"bos_token": 3}', b'{"additional_special_tokens": [[]]}', b'{"eos_token": {}}', b"\xff"]
)
def test_a_damaged_file_beside_it_is_told_by_name(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=name):
        opened(tmp_path, words())


@pytest.mark.parametrize("added", [{"x": {"content": "a"}}, {"9": {"content": "<new>"}}, {"9": 3}, [1]])
def test_added_tokens_that_do_not_fit_the_vocabulary_are_told(tmp_path: Path, added: Any) -> None:
    with pytest.raises(DataError, match=r"tokenizer_config\.json"):
        opened(tmp_path, words(), tokenizer_config={"added_tokens_decoder": added})


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    for content in (b"", b"{}", b"\x80", words().to_str().encode()[:-20]):
        (tmp_path / FILE).write_bytes(content)
        with pytest.raises(DataError, match=FILE):
            TokenizerJSON.open(CONFIG, tmp_path)
