"""The text corpus: files, directories, lines of JSON; and what it says about files it cannot read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.core import DataError
from lamina.plugins.corpus.text import TextConfig, TextCorpus


def documents(directory: Path, path: str, **options: Any) -> list[str]:
    return list(TextCorpus(TextConfig(path=path, **options), directory).documents())


def test_a_file_is_one_document_kept_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.odd").write_bytes("\n one\r\n\tzwö 😀 \n".encode())
    assert documents(tmp_path, "a.odd") == ["\n one\r\n\tzwö 😀 \n"]
    assert documents(Path("/"), str(tmp_path / "a.odd")) == ["\n one\r\n\tzwö 😀 \n"]


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone")
    assert documents(tmp_path, "a.txt") == ["one"]


def test_a_directory_gives_its_text_files_in_order_of_path(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.md", "a/b/c.py", "a.TXT", "image.png", ".git/x.txt", ".hidden.txt", "empty.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("" if name == "empty.txt" else name)
    assert documents(tmp_path, ".") == ["a/b/c.py", "a/z.md", "a.TXT", "b.txt"]
    assert documents(tmp_path, ".", pattern="*.txt") == ["b.txt"]
    assert documents(tmp_path, ".", pattern="**/*.png") == ["image.png"]


@pytest.mark.skipif(os.name == "nt", reason="no named pipes in folders")
def test_what_is_no_regular_file_is_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")  # reading it would wait for ever
    (tmp_path / "a.txt").write_text("one")
    assert documents(tmp_path, ".") == ["one"]
    with pytest.raises(DataError, match="neither a file nor a directory"):
        documents(tmp_path, "pipe.txt")


def test_a_separator_cuts_a_file_into_documents(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n<|end|>\n  two\n\n<|end|>\n<|end|>")
    assert documents(tmp_path, "a.txt", separator="<|end|>") == ["one", "  two"]


TEXT = st.text().filter(str.strip)


@given(texts=st.lists(TEXT, min_size=1), field=st.text())
def test_each_line_of_json_is_a_document(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], field: str
) -> None:
    directory = tmp_path_factory.mktemp("lines")
    lines = [json.dumps({"n": i, field: text}) for i, text in enumerate(texts)]
    (directory / "a.jsonl").write_text("\n\n".join(lines), encoding="utf-8")
    assert documents(directory, "a.jsonl", field=field) == texts


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "a.jsonl:2: not JSON"),
        ("[" * 100_000, "a.jsonl:2: not JSON"),
        ("[1]", "a.jsonl:2: no field 'text'"),
        ('{"body": "x"}', "a.jsonl:2: no field 'text'\n  its fields are body; set `field`"),
        ('{"text": 5}', "a.jsonl:2: field 'text' is no string but int"),
        ('{"text": "\\ud800"}', "a.jsonl:2: field 'text' holds half a surrogate pair"),
    ],
)
def test_a_bad_line_is_named_by_number(tmp_path: Path, line: str, says: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n' + line + "\n")
    with pytest.raises(DataError) as caught:
        documents(tmp_path, "a.jsonl")
    assert says in str(caught.value)


def test_bytes_that_are_not_utf8_are_named_by_file_and_offset(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"caf\xe9 au lait")
    with pytest.raises(DataError, match=r"a\.txt' is not UTF-8: byte 0xe9 at offset 3") as caught:
        documents(tmp_path, ".")
    assert "iconv" in str(caught.value)
    (tmp_path / "b.jsonl").write_bytes(b'{"text": "x"}\n{"text": "\xff"}\n')
    with pytest.raises(DataError, match=r"b\.jsonl' is not UTF-8: byte 0xff at offset 24"):
        documents(tmp_path, "b.jsonl")


def test_a_missing_path_is_an_error_that_says_what_it_is_relative_to(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.txt' does not exist") as caught:
        documents(tmp_path, "gone.txt")
    assert str(tmp_path) in str(caught.value)
    with pytest.raises(DataError, match="cannot be read"):
        documents(tmp_path, "n" * 5000)


@pytest.mark.parametrize("content", ["", " \n\n\t"])
def test_a_corpus_without_text_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.txt").write_text(content)
    with pytest.raises(DataError, match="no text"):
        documents(tmp_path, "a.txt")


def test_a_directory_without_text_files_says_how_to_choose_others(tmp_path: Path) -> None:
    (tmp_path / "a.odd").write_text("x")
    with pytest.raises(DataError, match="set `pattern`"):
        documents(tmp_path, ".")
    with pytest.raises(DataError, match=r"matches '\*\.txt'"):
        documents(tmp_path, ".", pattern="*.txt")


def test_a_pattern_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match="pattern '/etc/\\*' cannot be used"):
        documents(tmp_path, ".", pattern="/etc/*")
    with pytest.raises(DataError, match="is a file"):
        documents(tmp_path, "a.txt", pattern="*.txt")
