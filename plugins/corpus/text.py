"""Text files: a file, or every text file below a directory. A .jsonl file has a document in each line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from lamina.core import ComponentConfig, Corpus, DataError, Register, hookimpl

# What is read from a directory without `pattern`.
PROSE = {".jsonl", ".md", ".rst", ".tex", ".text", ".txt"}
SOURCE = {".c", ".cc", ".cpp", ".go", ".h", ".hpp", ".java", ".js", ".py", ".rs", ".sh", ".ts"}
SUFFIXES = PROSE | SOURCE


class TextConfig(ComponentConfig):
    path: str = Field(min_length=1, description="A file or a directory.")
    pattern: str | None = Field(
        None,
        min_length=1,
        description="Which files of the directory, such as **/*.txt; without it, those with a usual text or source "
        "suffix. Hidden files and folders are left out.",
    )
    field: str = Field("text", description="The field of a .jsonl file's objects that holds the text.")
    separator: str | None = Field(
        None,
        min_length=1,
        description="Cut each text into documents where this stands, and drop it and the line breaks around it.",
    )


class TextCorpus(Corpus):
    """UTF-8 text from the disk: a document a file, a line of a .jsonl file, or a piece between separators."""

    Config = TextConfig
    paper = "the user's own text"

    @classmethod
    def examples(cls, directory: Path) -> Iterator[dict[str, Any]]:
        (directory / "two.txt").write_text("One document.\n---\nAnother: é, 漢字.\n", encoding="utf-8")
        lines = (json.dumps({"text": text, "body": text[::-1]}) for text in ("A line.", "Another line."))
        (directory / "lines.jsonl").write_text("\n".join(lines), encoding="utf-8")
        yield {"path": "two.txt"}
        yield {"path": "two.txt", "separator": "---"}
        yield {"path": "lines.jsonl", "field": "body"}
        yield {"path": "."}

    def documents(self) -> Iterator[str]:
        empty = True
        try:
            files = self._files()
        except OSError as error:
            raise _unreadable(self._root, error) from error
        for path in files:
            for text in self._json_lines(path) if path.suffix == ".jsonl" else [_read(path)]:
                for document in self._cut(text):
                    if document.strip():
                        empty = False
                        yield document
        if empty:
            raise DataError(f"there is no text in '{self._root}'")

    @property
    def _root(self) -> Path:
        return self.directory / Path(self.config.path).expanduser()

    def _files(self) -> list[Path]:
        root, pattern = self._root, self.config.pattern
        if root.is_file():
            if pattern is not None:
                raise DataError(f"`pattern` chooses files of a directory; '{root}' is a file", hint="leave it out")
            return [root]
        if not root.is_dir():
            what = "is neither a file nor a directory" if root.exists() else "does not exist"
            raise DataError(f"corpus path '{root}' {what}", hint=f"paths are relative to '{self.directory.resolve()}'")
        try:
            found = [path.relative_to(root) for path in root.glob(pattern or "**/*")]
        except (ValueError, NotImplementedError) as error:
            raise DataError(f"pattern '{pattern}' cannot be used: {error}", hint="**/*.txt is one that can") from error
        chosen = [
            root / path
            for path in sorted(found, key=lambda path: path.parts)
            if (pattern is not None or path.suffix.lower() in SUFFIXES)
            and not any(part.startswith(".") for part in path.parts)
            and (root / path).is_file()
        ]
        if not chosen:
            usual = " ".join(sorted(SUFFIXES))
            raise DataError(
                f"no file of '{root}' " + (f"matches '{pattern}'" if pattern else "is known to be text"),
                hint="change the pattern; ** goes into folders" if pattern else f"set `pattern`; known are {usual}",
            )
        return chosen

    def _cut(self, text: str) -> list[str]:
        if self.config.separator is None:
            return [text]
        return [piece.strip("\r\n") for piece in text.split(self.config.separator)]

    def _json_lines(self, path: Path) -> Iterator[str]:
        offset = 0
        try:
            with path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        yield self._field(_decode(line, path, offset), f"{path}:{number}")
                    offset += len(line)
        except OSError as error:
            raise _unreadable(path, error) from error

    def _field(self, line: str, place: str) -> str:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{place}: not JSON ({error})", hint="a .jsonl file has one JSON object a line") from error
        field = self.config.field
        if not isinstance(value, dict) or field not in value:
            hint = (
                f"its fields are {', '.join(sorted(value))}; set `field`" if isinstance(value, dict) and value else ""
            )
            raise DataError(f"{place}: no field '{field}'", hint=hint)
        text = value[field]
        if not isinstance(text, str):
            raise DataError(f"{place}: field '{field}' is no string but {type(text).__name__}")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise DataError(f"{place}: field '{field}' holds half a surrogate pair, which is no text") from error
        return text


def _read(path: Path) -> str:
    try:
        return _decode(path.read_bytes(), path, 0)
    except OSError as error:
        raise _unreadable(path, error) from error


def _decode(data: bytes, path: Path, offset: int) -> str:
    try:
        return data.decode("utf-8").removeprefix("\ufeff" if offset == 0 else "")
    except UnicodeDecodeError as error:
        raise DataError(
            f"'{path}' is not UTF-8: byte 0x{data[error.start]:02x} at offset {offset + error.start}",
            hint="convert it first, for example with iconv -f latin1 -t utf-8",
        ) from error


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"'{path}' cannot be read: {error.strerror}")


@hookimpl
def register_components(register: Register) -> None:
    register("text", TextCorpus)
