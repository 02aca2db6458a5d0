"""Characters: id = place of the character among those of the training text, sorted by code point.

The vocabulary of Karpathy's char-rnn and nanoGPT: 65 ids for tiny Shakespeare. No special tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import Field

from lamina.core import ComponentConfig, DataError, Register, Tokenizer, hookimpl

FILE = "characters.json"


class CharacterConfig(ComponentConfig):
    path: str | None = Field(None, description="A saved vocabulary; without one it is trained on the corpus.")
    unknown: Literal["error", "skip"] = Field(
        "error",
        description="What to do with a character that is not in the vocabulary: refuse the text, or leave it out.",
    )


class CharacterTokenizer(Tokenizer):
    """One id a character that occurred in the training text."""

    Config = CharacterConfig
    trainable = True
    paper = "char-rnn, Karpathy 2015"

    def __init__(self, characters: str, unknown: Literal["error", "skip"] = "error") -> None:
        self.characters, self.unknown = characters, unknown
        self._ids = {character: i for i, character in enumerate(characters)}

    @classmethod
    def recognise(cls, folder: Path, names: frozenset[str]) -> str | None:
        return FILE if FILE in names else None

    @classmethod
    def untrained(cls, config: CharacterConfig) -> bool:
        return config.path is None

    @classmethod
    def open(cls, config: CharacterConfig, directory: Path) -> Self:
        if config.path is None:
            raise DataError(
                "tokenizer 'character' has no `path`: it has to be trained first", hint="run `lamina train`"
            )
        path = directory / config.path
        try:
            characters = json.loads(cls.read_file(path))["characters"]
            cls.utf8(characters)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, DataError) as error:
            if isinstance(error, DataError) and not path.is_file():
                raise
            characters = ""
        if not characters or len(set(characters)) != len(characters):
            raise DataError(
                f"'{path}' is no character vocabulary: it needs \"characters\", a string that has each of them once",
                hint=f"a trained vocabulary is saved as {FILE}",
            )
        return cls(characters, config.unknown)

    @classmethod
    def train(cls, config: CharacterConfig, texts: Iterable[str], vocab_size: int) -> Self:
        found: set[str] = set()
        for text in texts:
            found.update(text)
        if not found:
            raise DataError("the corpus has no text to take characters from")
        if len(found) > vocab_size:
            raise DataError(
                f"the text has {len(found):,} different characters; vocab_size is {vocab_size:,}",
                hint=f"set vocab_size: {len(found)}, or use tokenizer 'byte' or 'bpe', which know every character",
            )
        characters = "".join(sorted(found))
        cls.utf8(characters)
        return cls(characters, config.unknown)

    def save(self, directory: Path) -> CharacterConfig:
        (directory / FILE).write_text(json.dumps({"characters": self.characters}), encoding="utf-8")
        return CharacterConfig(path=FILE, unknown=self.unknown)

    @property
    def lossy(self) -> bool:
        return self.unknown == "skip"

    @property
    def vocab_size(self) -> int:
        return len(self.characters)

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        ids = self._ids
        if self.unknown == "skip":
            return [ids[character] for character in text if character in ids]
        try:
            return [ids[character] for character in text]
        except KeyError as error:
            character = error.args[0]
            raise DataError(
                f"character {character!r} (U+{ord(character):04X}) is not among the {len(ids)} the tokenizer knows",
                hint="leave it out of the text, set the tokenizer's `unknown: skip`, or train with 'byte' or 'bpe'",
            ) from None

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        return "".join(self.characters[i] for i in ids if i < len(self.characters))


@hookimpl
def register_components(register: Register) -> None:
    register("character", CharacterTokenizer)
