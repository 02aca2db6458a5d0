"""What a vocabulary comes to, for formats that run it themselves: tokens, and how they are merged. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum


class TokenKind(IntEnum):
    """What a token is for, numbered as SentencePiece does."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3  # special: marks structure, and is no text
    USER_DEFINED = 4  # found whole in any text
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class ByteLevelBPE:
    """Byte-pair encoding over bytes. Tokens are spelt in GPT-2's alphabet of bytes; special and user's ones as text."""

    tokens: Sequence[str]
    kinds: Sequence[TokenKind]
    merges: Sequence[tuple[str, str]]
    # A text -> the pieces that are merged each by itself, spelt like tokens; None where nothing is merged.
    cut: Callable[[str], list[str]] | None
    ignore_merges: bool = False  # a piece that is a token is taken whole
    composes: bool = False  # text is brought to NFC first


@dataclass(frozen=True)
class ScoredBPE:
    """SentencePiece's byte-pair encoding: the two neighbours that make the best token are merged; spaces are ▁, and
    what no token spells is bytes."""

    tokens: Sequence[str]
    kinds: Sequence[TokenKind]
    scores: Sequence[float]
    add_prefix: bool  # whether a text begins with a space


Vocabulary = ByteLevelBPE | ScoredBPE


def _byte_alphabet() -> dict[str, int]:
    """The character that stands for each byte in byte-level vocabularies, as GPT-2 has it: visible ones for themselves,
    the others, in order, from U+0100 on."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(0x100 + i): byte for i, byte in enumerate(hidden)}


BYTE_OF = _byte_alphabet()
LETTER_OF = {byte: letter for letter, byte in BYTE_OF.items()}


def spelt(data: bytes) -> str:
    """Bytes in that alphabet."""
    return "".join(map(LETTER_OF.__getitem__, data))


def bytes_of(piece: str) -> bytes:
    """What a piece of a byte-level vocabulary stands for. An added token, not written in that alphabet, is text."""
    return bytes(BYTE_OF[c] for c in piece) if all(c in BYTE_OF for c in piece) else piece.encode()
