"""How tokenizers cut a text: finding one by whatever a person calls it, and what there is to tell of the cut."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamina.core.component import Part
from lamina.core.errors import DataError
from lamina.core.model import open_tokenizer, read_model_spec
from lamina.core.registry import Registry, load_plugins
from lamina.core.resolve import resolve, resolve_part
from lamina.core.resolved import ResolvedSpec
from lamina.core.spec import load_spec, read_spec, shipped_specs
from lamina.core.tokenizer import Tokenizer

LARGEST_TEXT = 1 << 28  # a quarter of a gigabyte: more is not for looking at
SPECS = (".yaml", ".yml")


@dataclass(frozen=True)
class Cut:
    """A text as one tokenizer cuts it."""

    name: str  # what the person called the tokenizer
    component: str
    ids: list[int]
    tokens: list[str]  # what each id stands for; bytes that are no character by themselves as <0xE2>
    vocab_size: int
    special_ids: dict[str, int]
    characters: int
    words: int  # what stands between white space
    bytes: int  # in UTF-8
    comes_back: bool  # whether the ids decode to the text

    def per(self, what: int) -> float | None:
        """Tokens for each of `what`, None where there are none."""
        return len(self.ids) / what if what else None

    @property
    def bytes_per_token(self) -> float | None:
        return self.bytes / len(self.ids) if self.ids else None

    def to_json(self) -> dict[str, Any]:
        return {"ids": self.ids, "tokens": self.tokens}


def cut(
    text: str,
    tokenizers: Sequence[str | Mapping[str, Any]],
    *,
    allow_special: bool = False,
    registry: Registry | None = None,
) -> list[Cut]:
    """`text` cut by each tokenizer: a model, run or tokenizer directory, a tokenizer's file, a spec, a component's
    name, or a mapping as a spec would have it. Text that looks like a special token is text unless `allow_special`."""
    registry = registry or load_plugins()
    found = []
    for source in tokenizers:
        name, component, tokenizer = find_tokenizer(source, registry)
        ids = tokenizer.encode(text, allow_special=allow_special)
        found.append(
            Cut(
                name, component, ids, tokenizer.token_texts(ids), tokenizer.vocab_size, tokenizer.special_ids,
                len(text), len(text.split()), len(tokenizer.utf8(text)),
                tokenizer.decode(ids, skip_special=not allow_special) == text,
            )
        )  # fmt: skip
    return found


def find_tokenizer(source: str | Mapping[str, Any], registry: Registry) -> tuple[str, str, Tokenizer]:
    """(what to call it, its component's name, the tokenizer). DataError says what was tried."""
    if isinstance(source, Mapping):
        part = resolve_part("tokenizer", dict(source), registry)
        return f"{source.get('path') or part.name}", part.name, _open(part, Path(), part.name)
    if not source.strip():
        raise DataError("no tokenizer is named", hint="give a directory, a tokenizer's file, a spec or a component")
    if os.path.exists(source):  # which, unlike Path.exists, takes any text
        path = Path(source)
        if path.is_dir() and (path / "lamina.json").is_file():
            return _of_spec(source, read_model_spec(path, registry))
        if path.is_dir() and (path / "spec.yaml").is_file():
            return _of_spec(source, resolve(read_spec(path / "spec.yaml"), registry))
        if path.is_file() and path.suffix in SPECS:
            return _of_spec(source, resolve(load_spec(path), registry))
        part, folder = recognise(path, registry)
        return source, part.name, _open(part, folder, source)
    if source.rpartition(":")[2] in registry.names("tokenizer"):
        part = resolve_part("tokenizer", source, registry)
        return source, part.name, _open(part, Path(), source)
    if source in shipped_specs():
        return _of_spec(source, resolve(load_spec(source), registry))
    raise DataError(
        f"'{source}': no such file or directory, and neither a tokenizer nor a shipped spec has this name",
        hint="give a model, run or tokenizer directory, a tokenizer's file, a spec, or a tokenizer of these",
        note=f"tokenizers: {', '.join(registry.names('tokenizer'))}\nspecs: {', '.join(shipped_specs())}",
    )


def _open(part: Part, folder: Path, source: str) -> Tokenizer:
    component: Any = part.component
    if component.untrained(part.config):
        raise DataError(
            f"{source}: tokenizer '{part.name}' has no vocabulary until it is trained",
            hint=f"name its file: '{{name: {part.name}, path: FILE}}'",
        )
    tokenizer: Tokenizer = component.open(part.config, folder)
    return tokenizer


def _of_spec(source: str, spec: ResolvedSpec) -> tuple[str, str, Tokenizer]:
    if spec.tokenizer is None:
        raise DataError(f"{source}: its spec names no tokenizer")
    tokenizer = open_tokenizer(spec)
    if tokenizer is None:
        what = f"{source}: its tokenizer '{spec.tokenizer.name}' has no vocabulary until it is trained"
        raise DataError(what, hint="give the run directory of a `lamina train`")
    return source, spec.tokenizer.name, tokenizer


def recognise(path: Path, registry: Registry) -> tuple[Part, Path]:
    """The tokenizer component that opens this file, or a file of this directory, and the directory."""
    folder = path if path.is_dir() else path.parent
    entries = registry.entries("tokenizer")
    try:
        names = (
            frozenset(one.name for one in folder.iterdir() if one.is_file())
            if path.is_dir()
            else frozenset({path.name})
        )
        shared = {entry.name for entry in entries if sum(other.name == entry.name for other in entries) > 1}
        components: list[tuple[str, Any]] = [
            (f"{entry.distribution}:{entry.name}" if entry.name in shared else entry.name, entry.component)
            for entry in entries
        ]
        claims = [(name, component.recognise(folder, names)) for name, component in components]
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    claims = [(name, file) for name, file in claims if file is not None]
    if len(claims) != 1:
        tried = ", ".join(sorted({entry.name for entry in entries}))
        what = (
            "holds no file that a tokenizer opens" if path.is_dir() else "is no file that a tokenizer opens by its name"
        )
        if claims:
            what = "may be opened by " + " or ".join(f"{name} ({file})" for name, file in claims)
        raise DataError(f"{path}: {what}", hint="say which: '{name: …, path: …}'", note=f"tried: {tried}")
    name, file = claims[0]
    return resolve_part("tokenizer", {"name": name, "path": file}, registry), folder


def read_text(file: str) -> str:
    """The text of a file, or of stdin for `-`. DataError names one that is too large or not UTF-8."""
    size = 0
    try:
        if file == "-":
            data = sys.stdin.buffer.read(LARGEST_TEXT + 1)
        elif os.path.isdir(file):
            raise DataError(f"{file}: a directory, not a text file")
        else:
            size = os.path.getsize(file)
            with open(file, "rb") as opened:
                data = b"" if size > LARGEST_TEXT else opened.read(LARGEST_TEXT + 1)
    except (OSError, ValueError) as error:
        raise DataError(f"{file!r}: cannot be read: {getattr(error, 'strerror', error)}") from None
    if max(size, len(data)) > LARGEST_TEXT:
        raise DataError(f"{file}: more than {LARGEST_TEXT:,} bytes", hint="give a piece of it: head -c 1000000 FILE")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 (byte {error.start})", hint="convert it first: iconv -t UTF-8") from None
