"""Bytes: id = byte of the UTF-8 text, and 256 ends a text. Every text round-trips and nothing is trained.

Xue et al. 2021 (ByT5), arXiv:2105.13626, with other special ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from lamina.core import ByteLevelBPE, ComponentConfig, Register, Tokenizer, TokenKind, hookimpl, spelt

END_OF_TEXT = "<|endoftext|>"
END_ID = 256


class ByteConfig(ComponentConfig):
    """Nothing to choose."""


class ByteTokenizer(Tokenizer):
    """One id a byte: a small vocabulary, long sequences."""

    Config = ByteConfig
    paper = "Xue et al. 2021, arXiv:2105.13626"

    @classmethod
    def open(cls, config: ByteConfig, directory: Path) -> Self:
        return cls()

    def save(self, directory: Path) -> ByteConfig:
        return ByteConfig()

    @property
    def vocab_size(self) -> int:
        return END_ID + 1

    @property
    def special_ids(self) -> dict[str, int]:
        return {END_OF_TEXT: END_ID}

    @property
    def eos_id(self) -> int:
        return END_ID

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        if not allow_special:
            return list(self.utf8(text))
        first, *rest = text.split(END_OF_TEXT)
        ids = list(self.utf8(first))
        for piece in rest:
            ids += [END_ID, *self.utf8(piece)]
        return ids

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        end = b"" if skip_special else END_OF_TEXT.encode()
        pieces = (bytes((i,)) if i < END_ID else end if i == END_ID else b"" for i in ids)
        return b"".join(pieces).decode("utf-8", errors="replace")

    def vocabulary(self) -> ByteLevelBPE:
        tokens = [*(spelt(bytes((byte,))) for byte in range(END_ID)), END_OF_TEXT]
        kinds = [*(TokenKind.NORMAL for _ in range(END_ID)), TokenKind.CONTROL]
        return ByteLevelBPE(tokens, kinds, merges=[], cut=None)

    def token_bytes(self, ids: Sequence[int]) -> list[bytes | None]:
        return [bytes((i,)) if i < END_ID else None for i in ids]

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        # A byte above 127 is no character by itself; its number says more than U+FFFD would.
        return [f"<0x{i:02X}>" if 128 <= i < END_ID else self.decode([i], skip_special=False) for i in ids]


@hookimpl
def register_components(register: Register) -> None:
    register("byte", ByteTokenizer)
