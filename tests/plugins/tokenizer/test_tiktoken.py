"""The tiktoken tokenizer: rank files and tekken.json against a naive merging of bytes and the library itself."""

from __future__ import annotations

import base64
import itertools
import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import regex
import tiktoken
import tiktoken_ext.openai_public
from hypothesis import example, given
from hypothesis import strategies as st

from lamina.core import ConfigProblem, DataError, LaminaError
from lamina.plugins.tokenizer.tiktoken import PATTERNS, TiktokenConfig, TiktokenTokenizer

MERGED = ["th", "the", " the", "at", " c", " cat", "12", "é", "\n\n", "  ", " s", " sat", "in", "ing", "'s"]
HALVES = [b"\xe6\x97", b"\xe6\x9c", "日".encode(), "本".encode(), "日本".encode()]
PIECES = [*(bytes([byte]) for byte in range(255, -1, -1)), *(piece.encode() for piece in MERGED), *HALVES]
RANKS = {piece: i for i, piece in enumerate(PIECES)}
SPECIAL = {"<|endoftext|>": 300, "<|user|>": 299}
TEXT = "the cat's singing\n\n  sat 1212 é日本日 <|user|> \t😀"


def rank_file(ranks: dict[bytes, int] = RANKS) -> bytes:
    return b"".join(base64.b64encode(piece) + b" " + str(i).encode() + b"\n" for piece, i in ranks.items())


def tekken_file(**changes: Any) -> dict[str, Any]:
    return {
        "config": {
            "pattern": PATTERNS["cl100k"],
            "num_vocab_tokens": len(PIECES),
            "default_vocab_size": len(PIECES) + 30,
            "default_num_special_tokens": 30,
            "version": "v3",
        },
        "vocab": [
            {"rank": i, "token_bytes": base64.b64encode(piece).decode(), "token_str": None}
            for piece, i in RANKS.items()
        ],
        **changes,
    }


def opened(directory: Path, content: bytes | dict[str, Any], **options: Any) -> TiktokenTokenizer:
    (directory / "x").write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return TiktokenTokenizer.open(TiktokenConfig(path="x", **options), directory)


@cache
def ranked(base: Path) -> TiktokenTokenizer:
    return opened(base, rank_file(), special_tokens=SPECIAL)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TiktokenTokenizer:
    return ranked(tmp_path_factory.mktemp("ranks"))


def merged(text: str, pattern: str) -> list[int]:
    """Each match of the pattern: its bytes, the neighbours of lowest rank joined until there are none."""
    ids = []
    for match in regex.finditer(pattern, text):
        parts = [bytes([byte]) for byte in match[0].encode()]
        while True:
            joined = [(RANKS[a + b], i) for i, (a, b) in enumerate(itertools.pairwise(parts)) if a + b in RANKS]
            if not joined:
                break
            _, i = min(joined)
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        ids += [RANKS[part] for part in parts]
    return ids


@given(st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from("the cat's12é日本\n "))))
@example(TEXT)
@example("\0 \ufffd\u200d👩‍👩‍👧<|endoftext|>")
def test_ids_are_those_of_naive_merging_and_every_text_round_trips(tokenizer: TiktokenTokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert ids == merged(text, PATTERNS["cl100k"])
    assert tokenizer.decode(ids) == text
    assert not tokenizer.lossy


@pytest.mark.parametrize(
    ("name", "theirs"), [("r50k", "r50k_base"), ("cl100k", "cl100k_base"), ("o200k", "o200k_base")]
)
def test_patterns_cut_as_the_librarys_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, theirs: str
) -> None:
    monkeypatch.setattr(tiktoken_ext.openai_public, "load_tiktoken_bpe", lambda *_, **__: RANKS)
    pattern = getattr(tiktoken_ext.openai_public, theirs)()["pat_str"]
    library = tiktoken.Encoding("x", pat_str=pattern, mergeable_ranks=RANKS, special_tokens={})
    ours = opened(tmp_path, rank_file(), pattern=name)
    for text in (TEXT, "I'LL don't  Straße/ΑΒΓ_x==\r\n\r\n   1234567 \n a\t\tb", "…日本語テキスト   ", "¡Ñandú! ǅ ½"):
        assert ours.encode(text) == library.encode_ordinary(text)
    # Where they cut, and not only what ids come of it:
    text = "I'LL don't  Straße/ΑΒΓ_x==\r\n\r\n   1234567 \n a\t\tb camelCase HTTPServer's"
    assert regex.findall(f"(?:{PATTERNS[name]})", text) == [m[0] for m in regex.finditer(pattern, text)]


def test_special_tokens_are_text_unless_allowed(tokenizer: TiktokenTokenizer) -> None:
    library = tiktoken.Encoding(
        "x", pat_str=PATTERNS["cl100k"], mergeable_ranks=RANKS, special_tokens=SPECIAL
    )  # fmt: skip
    text = "the<|user|> cat<|endoftext|>"
    assert tokenizer.encode(text) == library.encode_ordinary(text)
    assert not {299, 300} & set(tokenizer.encode(text))
    ids = tokenizer.encode(text, allow_special=True)
    assert ids == library.encode(text, allowed_special="all")
    assert tokenizer.decode(ids) == "the cat"
    assert tokenizer.decode(ids, skip_special=False) == text
    assert tokenizer.special_ids == SPECIAL
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.vocab_size) == (None, 300, 301)


def test_the_end_of_text_may_be_named(tmp_path: Path) -> None:
    assert opened(tmp_path, rank_file(), special_tokens=SPECIAL, end_of_text="<|user|>").eos_id == 299
    with pytest.raises(DataError, match=r"no special token '<stop>'") as caught:
        opened(tmp_path, rank_file(), special_tokens=SPECIAL, end_of_text="<stop>")
    assert "<|endoftext|>, <|user|>" in str(caught.value)


def test_a_text_streams_as_it_decodes(tokenizer: TiktokenTokenizer) -> None:
    decoder = tokenizer.stream()
    pieces = [*map(decoder.push, tokenizer.encode(TEXT)), decoder.finish()]
    assert "".join(pieces) == TEXT
    assert not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize("kind", ["ranks", "tekken"])
def test_saved_and_opened_it_is_the_same(tmp_path: Path, kind: str) -> None:
    options = {"special_tokens": SPECIAL, "pattern": r"\w+|\W+"} if kind == "ranks" else {}
    first = opened(tmp_path, rank_file() if kind == "ranks" else tekken_file(), **options)
    config = first.save(tmp_path)
    again = TiktokenTokenizer.open(config, tmp_path)
    for allow in (False, True):
        text = TEXT + "</s><|endoftext|>"
        assert again.encode(text, allow_special=allow) == first.encode(text, allow_special=allow)
    assert (again.special_ids, again.eos_id, again.vocab_size) == (first.special_ids, first.eos_id, first.vocab_size)
    assert TiktokenTokenizer.recognise(tmp_path, frozenset([config.path])) == config.path


def test_pieces_are_bytes_and_shown_with_those_that_are_no_text_by_number(tokenizer: TiktokenTokenizer) -> None:
    ids = [*tokenizer.encode(" the😀"), 299, 5000]
    assert tokenizer.token_bytes(ids) == [b" the", b"\xf0", b"\x9f", b"\x98", b"\x80", None, None]
    assert tokenizer.token_texts(ids) == [" the", "<0xF0>", "<0x9F>", "<0x98>", "<0x80>", "<|user|>", ""]
    assert tokenizer.decode([*ids, -1]) == " the😀"


def test_tekken_has_its_special_tokens_first_and_then_the_pieces_by_rank(tmp_path: Path) -> None:
    named = [{"rank": 0, "token_str": "<unk>"}, {"rank": 1, "token_str": "<s>"}, {"rank": 2, "token_str": "</s>"}]
    tokenizer = opened(tmp_path, tekken_file(special_tokens=named))
    assert tokenizer.encode(TEXT) == [30 + i for i in merged(TEXT, PATTERNS["cl100k"])]
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.vocab_size) == (1, 2, 30 + len(PIECES))
    assert len(tokenizer.special_ids) == 30
    assert tokenizer.special_ids["<SPECIAL_29>"] == 29
    assert tokenizer.encode("</s>", allow_special=True) == [2]
    assert not {2} & set(tokenizer.encode("</s>"))
    older = opened(tmp_path, tekken_file())
    assert (older.special_ids["[INST]"], older.special_ids["[TOOL_CONTENT]"], older.eos_id) == (3, 19, 2)


def test_tekken_is_cut_to_its_vocabulary_size(tmp_path: Path) -> None:
    data = tekken_file()
    data["config"]["default_vocab_size"] = 30 + 257
    tokenizer = opened(tmp_path, data)
    assert tokenizer.vocab_size == 287
    assert tokenizer.encode("the cat") == [30 + RANKS[piece] for piece in (b"th", b"e", b" ", b"c", b"a", b"t")]


def test_a_pattern_that_leaves_text_out_is_an_error_and_loses_nothing(tmp_path: Path) -> None:
    tokenizer = opened(tmp_path, rank_file(), pattern=r"\w+")
    assert tokenizer.decode(tokenizer.encode("thecat")) == "thecat"
    with pytest.raises(DataError, match="pattern matches only parts"):
        tokenizer.encode("the cat")
    with pytest.raises(DataError, match="pattern matches only parts"):
        tokenizer.encode("the cat", allow_special=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty vocabulary"),
        (b"junk", "line 1 of .* is 'junk'"),
        (rank_file()[:-5], "line 276 of"),
        (rank_file() + b"!!!! 400\n", "line 277 of"),
        (rank_file() + b"YWI= -4\n", "line 277 of"),
        (rank_file() + b"YWI= 99999999999\n", "line 277 of"),
        (rank_file() + b"YWI= 3\n", "two pieces have one rank"),
        (rank_file(dict(list(RANKS.items())[1:])), "no piece for the byte 255"),
        (b"{", "not JSON"),
        (b"{}", "no tekken.json"),
        (b"\x80\x04\x95", "line 1 of"),
    ],
)
def test_a_damaged_file_is_a_data_error_that_names_it(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        opened(tmp_path, content)
    assert str(tmp_path / "x") in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"config": 3},
        {"vocab": [{"rank": 0}]},
        {"vocab": []},
        {"vocab": [{"rank": "x", "token_bytes": "YQ=="}]},
        {"vocab": [{"rank": 0, "token_bytes": "!"}]},
        {"special_tokens": [{"rank": 3, "token_str": ""}]},
        {"vocab": [*tekken_file()["vocab"][:-1], {"rank": 275, "token_bytes": ""}]},
        {"special_tokens": [{"rank": 31, "token_str": "<s>"}]},
        {"special_tokens": [{"rank": 0, "token_str": "<s>"}, {"rank": 1, "token_str": "<s>"}]},
        {"config": {"pattern": 3, "default_vocab_size": 300, "default_num_special_tokens": 20}},
        {"config": {"pattern": "x", "default_vocab_size": 1 << 62, "default_num_special_tokens": 1 << 61}},
    ],
)
def test_a_damaged_tekken_is_told(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=str(tmp_path / "x")):
        opened(tmp_path, tekken_file(**changes))


def test_options_that_do_not_fit_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be used") as caught:
        opened(tmp_path, rank_file(), pattern="(")
    assert "regular expression" in str(caught.value)
    with pytest.raises(DataError, match="matches the empty text"):
        opened(tmp_path, rank_file(), pattern=r"\w*|\W")
    with pytest.raises(DataError, match="both have the id 3"):
        opened(tmp_path, rank_file(), special_tokens={"<s>": 3})
    with pytest.raises(ConfigProblem, match="distinct"):
        TiktokenConfig(path="x", special_tokens={"a": 300, "b": 300}).derive()
    for option in ({"pattern": "r50k"}, {"special_tokens": {"a": 400}}):
        with pytest.raises(DataError, match="which has its own"):
            opened(tmp_path, tekken_file(), **option)
    with pytest.raises(DataError, match="half a surrogate pair"):
        opened(tmp_path, rank_file()).encode("\ud800")


def test_without_the_library_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    with pytest.raises(LaminaError, match="needs the package tiktoken") as caught:
        opened(tmp_path, rank_file())
    assert "pip install 'lamina[tiktoken]'" in str(caught.value)
