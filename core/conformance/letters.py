"""A tokenizer for components that ask for one: a letter an id, and the last id ends a text."""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from lamina.core.component import ComponentConfig
from lamina.core.tokenizer import Tokenizer

LETTERS = string.ascii_lowercase + " ."
END = "<end>"


class Letters(Tokenizer):
    """The letters a to z, space and full stop."""

    @classmethod
    def open(cls, config: Any, directory: Path) -> Self:
        return cls()

    def save(self, directory: Path) -> ComponentConfig:
        return ComponentConfig()

    @property
    def vocab_size(self) -> int:
        return len(LETTERS) + 1

    @property
    def special_ids(self) -> dict[str, int]:
        return {END: len(LETTERS)}

    @property
    def eos_id(self) -> int:
        return len(LETTERS)

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        return [LETTERS.index(letter) for letter in text if letter in LETTERS]

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        end = "" if skip_special else END
        return "".join(LETTERS[i] if i < len(LETTERS) else end for i in ids)
