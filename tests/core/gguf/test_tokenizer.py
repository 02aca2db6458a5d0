"""Vocabularies go into a GGUF's metadata and come back: the same ids as before, and as the reference library's."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from lamina.core.errors import LaminaError
from lamina.core.gguf.pre_tokenizers import CUTTINGS, PROBE, name_of, pre_tokenizer
from lamina.core.gguf.tokenizer import tokenizer_entries, write_tokenizer_files
from lamina.core.registry import load_plugins
from lamina.core.tokenizer import Tokenizer
from lamina.core.tokens import find_tokenizer

REGISTRY = load_plugins(only=[])
CORPUS = [
    PROBE,
    "The quick brown fox jumps over the lazy dog. " * 20,
    "def f(x):\n    return x + 1\n" * 20,
    "ß ä é" * 9,
]
TEXTS = [PROBE, "Hello, world!", "  two  spaces ", "\n\n\ttab", "naïve café 東京 🙂 <s> </s>", "1234567 don't", ""]


def plain(value: Any) -> Any:
    """An entry as a file gives it back."""
    if isinstance(value, list):
        return [plain(one) for one in value]
    return value.item() if isinstance(value, np.generic) else value


def back(tokenizer: Tokenizer, size: int, folder: Path, **ids: Any) -> Tokenizer:
    """The tokenizer after a way through a file's entries."""
    entries = tokenizer_entries(tokenizer, size, ids, None)
    assert entries is not None
    folder.mkdir(exist_ok=True)
    write_tokenizer_files({key: plain(value) for key, value in entries.items()}, folder)
    return find_tokenizer(str(folder), REGISTRY)[2]


def opened(made: tokenizers.Tokenizer, folder: Path, **beside: Any) -> Tokenizer:
    folder.mkdir()
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(beside))
    return find_tokenizer(str(folder), REGISTRY)[2]


def byte_level(patterns: tuple[str, ...], ignore_merges: bool = False) -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.BPE(ignore_merges=ignore_merges))
    made.pre_tokenizer, made.decoder = pre_tokenizer(patterns), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=500, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    made.train_from_iterator(CORPUS, trainer)
    made.add_tokens(["<user>"])
    return made


@pytest.mark.parametrize("one", CUTTINGS, ids=lambda one: one.names[0])
def test_a_byte_level_vocabulary_comes_back_with_its_way_of_cutting(one: Any, tmp_path: Path) -> None:
    made = byte_level(one.patterns, one.ignore_merges)
    if one.composes:
        made.normalizer = normalizers.NFC()
    ours = opened(made, tmp_path / "ours", eos_token="</s>", bos_token="<s>", add_bos_token=True)
    entries = tokenizer_entries(ours, 510, {}, None)
    assert entries is not None
    assert entries["tokenizer.ggml.pre"] == one.names[0]
    again = back(ours, 510, tmp_path / "again")
    made.encode_special_tokens = True
    for text in TEXTS:
        ids = made.encode(text, add_special_tokens=False).ids
        assert again.encode(text) == ids == ours.encode(text)
    assert again.encode("a<user>b") == [ours.encode("a")[0], 500, ours.encode("b")[0]]
    assert (again.special_ids, again.bos_id, again.eos_id, again.adds_bos) == ({"<s>": 0, "</s>": 1}, 0, 1, True)


def test_the_probe_tells_all_ways_of_cutting_apart() -> None:
    cut = {one.names[0]: pre_tokenizer(one.patterns).pre_tokenize_str(PROBE) for one in CUTTINGS}
    alike = {(a, b) for a, b in itertools.combinations(cut, 2) if cut[a] == cut[b]}
    patterns = {one.names[0]: one.patterns for one in CUTTINGS}
    assert all(patterns[a] == patterns[b] for a, b in alike)
    assert len({name for one in CUTTINGS for name in one.names}) == sum(len(one.names) for one in CUTTINGS)


def test_the_usual_spellings_of_a_cut_are_known_by_their_effect() -> None:
    def cutter(*steps: Any) -> Any:
        made = pre_tokenizers.Sequence(list(steps))
        return lambda text: [piece for piece, _ in made.pre_tokenize_str(text)]

    whole = pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert name_of(cutter(whole), False, False) == "gpt-2"
    assert name_of(cutter(pre_tokenizers.Digits(individual_digits=True), whole), False, False) == "smollm"
    assert name_of(cutter(pre_tokenizers.WhitespaceSplit(), whole), False, False) is None


@pytest.fixture(scope="module")
def sentencepiece_model() -> bytes:
    library = pytest.importorskip("sentencepiece")
    written = io.BytesIO()
    library.SentencePieceTrainer.train(
        sentence_iterator=iter(" ".join(CORPUS).splitlines()), model_writer=written, vocab_size=420, model_type="bpe",
        byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=2,
        user_defined_symbols=["<user>"], control_symbols=["<ctl>"], num_threads=1,
    )  # fmt: skip
    return written.getvalue()


def test_a_sentencepiece_vocabulary_comes_back(sentencepiece_model: bytes, tmp_path: Path) -> None:
    import sentencepiece

    theirs = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model)
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "tokenizer.model").write_bytes(sentencepiece_model)
    ours = find_tokenizer(str(tmp_path / "ours"), REGISTRY)[2]
    again = back(ours, 430, tmp_path / "again")
    for text in TEXTS[:-1]:
        assert again.encode(text) == theirs.encode(text), text
        assert again.decode(theirs.encode(text)) == theirs.decode(theirs.encode(text))
    user = theirs.piece_to_id("<user>")
    assert again.encode("a<user>").index(user) == theirs.encode("a<user>").index(user)
    assert (again.bos_id, again.eos_id, again.adds_bos) == (1, 2, True)
    assert again.special_ids == {"<unk>": 0, "<s>": 1, "</s>": 2, "<ctl>": theirs.piece_to_id("<ctl>")}
    twice = back(again, 430, tmp_path / "twice")  # now a tokenizer.json's merges, from which scores are made
    for text in TEXTS:
        assert twice.encode(text) == again.encode(text)


def test_the_bytes_of_a_text_are_a_vocabulary_too(tmp_path: Path) -> None:
    ours = find_tokenizer("byte", REGISTRY)[2]
    again = back(ours, 257, tmp_path / "again")
    for text in TEXTS:
        assert again.encode(text) == ours.encode(text)
    assert again.eos_id == 256


def test_ranks_are_written_as_merges(tmp_path: Path) -> None:
    import base64

    pytest.importorskip("tiktoken")
    pieces = [bytes((b,)) for b in range(256)] + [b"th", b"he", b"the", b" the", b"in", b"ing", b"12", b"345"]
    lines = "\n".join(f"{base64.b64encode(piece).decode()} {rank}" for rank, piece in enumerate(pieces))
    (tmp_path / "x.tiktoken").write_text(lines)
    config = {"name": "tiktoken", "path": str(tmp_path / "x.tiktoken"), "special_tokens": {"<|endoftext|>": 300}}
    ours = find_tokenizer(config, REGISTRY)[2]
    entries = tokenizer_entries(ours, 301, {}, None)
    assert entries is not None
    assert entries["tokenizer.ggml.pre"] == "llama-bpe"
    again = back(ours, 301, tmp_path / "again")
    for text in [*TEXTS, "the thing in the 12345 breathing"]:
        assert again.encode(text) == ours.encode(text)


def test_what_llama_cpp_does_not_run_is_told(tmp_path: Path) -> None:
    made = byte_level((r"\s+",))
    ours = opened(made, tmp_path / "ours")
    assert tokenizer_entries(ours, 510, {}, None) is None  # cut as nobody does
    assert tokenizer_entries(find_tokenizer("byte", REGISTRY)[2], 200, {}, None) is None  # more tokens than ids
    lower = byte_level(CUTTINGS[0].patterns)
    lower.normalizer = normalizers.Lowercase()
    assert tokenizer_entries(opened(lower, tmp_path / "lower"), 510, {}, None) is None
    assert tokenizer_entries(None, 10, {}, None) is None


def entries(**changes: Any) -> dict[str, Any]:
    told = {
        "model": "gpt2", "pre": "gpt-2", "tokens": ["a", "b", "ab", "<e>"], "token_type": [1, 1, 1, 3],
        "merges": ["a b"], "eos_token_id": 3, **changes,
    }  # fmt: skip
    return {f"tokenizer.ggml.{key}": value for key, value in told.items() if value is not None}


def test_the_ends_of_a_turn_and_the_template_are_kept(tmp_path: Path) -> None:
    told = {**entries(eot_token_id=2, padding_token_id=1), "tokenizer.chat_template": "{{ messages }}"}
    write_tokenizer_files(told, tmp_path)
    generation = json.loads((tmp_path / "generation_config.json").read_text())
    assert generation == {"eos_token_id": [3, 2], "pad_token_id": 1}
    assert (tmp_path / "chat_template.jinja").read_text() == "{{ messages }}"
    ours = find_tokenizer(str(tmp_path), REGISTRY)[2]
    kept = tokenizer_entries(ours, 4, generation, "{{ messages }}")
    assert kept is None or kept["tokenizer.ggml.eot_token_id"] == 2


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model": "rwkv"}, "no component reads 'rwkv'"),
        ({"pre": "gpt-5"}, "no rule for cutting text is called 'gpt-5'"),
        ({"tokens": []}, "token_type: 4 of them, and 0 tokens"),
        ({"tokens": [1, 2, 3, 4]}, "tokens: no list of str"),
        ({"token_type": [1]}, "token_type: 1 of them, and 4 tokens"),
        ({"model": "llama", "scores": [0.0]}, "scores: 1 of them, and 4 tokens"),
        ({"tokens": None, "token_type": None}, "the vocabulary is empty"),
    ],
)
def test_entries_that_do_not_fit_are_named(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(LaminaError, match=told):
        write_tokenizer_files(entries(**changes), tmp_path)


def test_a_file_without_a_tokenizer_gives_none(tmp_path: Path) -> None:
    write_tokenizer_files({"tokenizer.ggml.model": "no_vocab"}, tmp_path)
    write_tokenizer_files({}, tmp_path)
    assert not list(tmp_path.iterdir())
