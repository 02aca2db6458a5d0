"""The tokenizer kind: text to ids and back. Imports no torch."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from lamina.core.component import Component, ComponentConfig
from lamina.core.errors import DataError
from lamina.core.vocabulary import Vocabulary

# What published vocabularies call the tokens that begin and end a document, the likelier first.
BEGINS = ("<|begin_of_text|>", "<｜begin▁of▁sentence｜>", "<bos>", "<s>", "<|startoftext|>")
ENDS = ("<|endoftext|>", "<|end_of_text|>", "<｜end▁of▁sentence｜>", "<eos>", "</s>", "<|im_end|>")
LARGEST_FILE = 1 << 30  # a larger file is no tokenizer: the largest vocabularies in use take some 30 MB


class Tokenizer(Component, ABC):
    """Cuts text into ids. Made by `open` (from the files its Config names) or by `train`."""

    kind = "tokenizer"
    trainable: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def open(cls, config: Any, directory: Path) -> Self:
        """From the files `config` names, relative to `directory`. DataError names a file that cannot be used."""

    @classmethod
    def recognise(cls, folder: Path, names: frozenset[str]) -> str | None:
        """Of the files `names` in `folder`, the one a Config's `path` should name for this component to open it.

        None when there is none, or when another file among them says more. It may look into the files' beginnings.
        """
        return None

    @classmethod
    def untrained(cls, config: Any) -> bool:
        """Whether `config` names no files, so that the tokenizer must be trained before use."""
        return False

    @classmethod
    def train(cls, config: Any, texts: Iterable[str], vocab_size: int) -> Self:
        """Learn a vocabulary of at most `vocab_size` ids from `texts`."""
        raise NotImplementedError(f"{cls.__name__} has nothing to train")

    @abstractmethod
    def save(self, directory: Path) -> ComponentConfig:
        """Write the files into `directory` (which exists) and return the Config that opens them from there."""

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """One more than the highest id."""

    @property
    def lossy(self) -> bool:
        """Whether some texts come back changed from `encode` and `decode`, where others would be refused."""
        return False

    @property
    def special_ids(self) -> dict[str, int]:
        """Special token text -> id, those that mark structure rather than stand for text."""
        return {}

    @property
    def bos_id(self) -> int | None:
        """Begins a text, None when the vocabulary has no such token. `adds_bos` says whether it is put there."""
        return None

    @property
    def eos_id(self) -> int | None:
        """Ends a text, None when the vocabulary has no such token."""
        return None

    @property
    def adds_bos(self) -> bool:
        """Whether `bos_id` is put before a text. Some vocabularies have the token and their models never saw it so."""
        return self.bos_id is not None

    def vocabulary(self) -> Vocabulary | None:
        """What the vocabulary comes to, for formats that run it themselves; None where they cannot."""
        return None

    @abstractmethod
    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """Text -> ids, nothing added. Text that looks like a special token is text unless `allow_special`."""

    @abstractmethod
    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Ids -> text. Bytes that are not UTF-8 come out as U+FFFD.

        `skip_special` leaves out `special_ids`. Ids without a token, as in a padded vocabulary, stand for no text.
        """

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        """What each id alone stands for, for people to look at."""
        return [self.decode([token], skip_special=False) for token in ids]

    def token_bytes(self, ids: Sequence[int]) -> list[bytes | None]:
        """What each id adds to a text that has begun, in UTF-8; None for special ids and those without bytes.

        A tokenizer with pieces of characters says here which bytes they are; decoded alone they have none.
        """
        special = frozenset(self.special_ids.values())
        texts = (self.decode([token]) for token in range(self.vocab_size) if token not in special)
        before = next((text for text in texts if text.strip() and "\ufffd" not in text), "")
        anchor = self.encode(before) if before else []  # a piece at the beginning may lose its space
        start = self.decode(anchor)
        found: list[bytes | None] = []
        for token in ids:
            known = token < self.vocab_size and token not in special
            text = self.decode([*anchor, token])[len(start) :] if known else "\ufffd"
            found.append(None if "\ufffd" in text else text.encode())
        return found

    def stream(self, context: Sequence[int] = ()) -> StreamDecoder:
        """For text that goes on after the whole text `context` stands for."""
        return StreamDecoder(self, context)

    @staticmethod
    def read_file(path: Path) -> bytes:
        """A tokenizer file's bytes, or DataError naming the file that cannot be one."""
        hint = "a tokenizer's `path` is relative to the file that names it"
        try:
            if not path.is_file():
                what = "is not a file" if path.exists() else "does not exist"
                raise DataError(f"tokenizer file '{path}' {what}", hint=hint)
            size = path.stat().st_size
            if size > LARGEST_FILE:
                raise DataError(
                    f"'{path}' has {size:,} bytes; a tokenizer file has at most {LARGEST_FILE:,}",
                    hint="is it a model or a corpus?",
                )
            return path.read_bytes()
        except OSError as error:
            raise DataError(f"tokenizer file '{path}' cannot be read: {error.strerror}", hint=hint) from error

    @staticmethod
    def split_special(text: str, names: Iterable[str]) -> list[str]:
        """`text` cut before and after every one of `names`, the longest where several begin; nothing empty."""
        listed = sorted(names, key=len, reverse=True)
        if not listed:
            return [text] if text else []
        pattern = "|".join(map(re.escape, listed))
        return [piece for piece in re.split(f"({pattern})", text) if piece]

    @classmethod
    def read_json(cls, path: Path) -> dict[str, Any]:
        """A tokenizer file that is a JSON object, or DataError naming the file that is none."""
        try:
            found = json.loads(cls.read_file(path))
        except (ValueError, RecursionError) as error:
            raise DataError(f"'{path}' is not JSON: {error}", hint="it may be cut short") from None
        if not isinstance(found, dict):
            raise DataError(f"'{path}' is not a JSON object")
        return found

    @staticmethod
    def utf8(text: str) -> bytes:
        """`text` in UTF-8, or DataError when it holds half a surrogate pair, which no text does."""
        try:
            return text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise DataError(
                f"character {error.start} of the text is U+{ord(text[error.start]):04X}, half a surrogate pair",
                hint="the text was read from bytes that are not UTF-8; convert it first",
            ) from error


def usual(names: Iterable[str], known: Mapping[str, int]) -> int | None:
    """The id of the first of `names`, such as BEGINS or ENDS, that is `known`."""
    return next((known[name] for name in names if name in known), None)


def show_bytes(data: bytes) -> str:
    """Bytes as text, those that are not UTF-8 each by its number: <0xE2><0x82>."""
    text = data.decode("utf-8", errors="surrogateescape")
    return "".join(f"<0x{ord(c) - 0xDC00:02X}>" if "\udc80" <= c <= "\udcff" else c for c in text)


class StreamDecoder:
    """Turns ids into text as they come; never emits half a character.

    Tokens are decoded with a few before them, because a piece's text may depend on its neighbours. U+FFFD at the end of
    the text is held back until it is completed or shown to be no character.
    """

    def __init__(self, tokenizer: Tokenizer, context: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._special = frozenset(tokenizer.special_ids.values())
        self._vocab_size = tokenizer.vocab_size
        # The latest ids: those whose text is still open, after some left context.
        self._ids, text = self._latest([token for token in context if self._has_text(token)])
        self._whole = len(self._ids)  # how many of them there were when they last ended on a whole character
        self._shown = len(text)  # characters of their text already emitted

    def push(self, token: int) -> str:
        """The text that `token` completes, often one piece, "" while a character is still open."""
        if not self._has_text(token):
            return ""
        self._ids.append(token)
        text = self._tokenizer.decode(self._ids)
        held = len(text) - len(text.rstrip("\ufffd"))
        if not held:
            self._whole = len(self._ids)
        late = len(self._ids) - self._whole > 8  # no character is open this long: only the last bytes may begin one
        if late:
            held = min(held, 3)
        end = max(self._shown, len(text) - held)
        new, self._shown = text[self._shown : end], end
        # While a character is open, a decoder may show whole ones before it as U+FFFD too: their number tells nothing.
        if len(self._ids) > 24 and (late or not held):
            self._forget(len(text) - end)
        return new

    def finish(self) -> str:
        """What is still held back, incomplete bytes as U+FFFD."""
        return self._tokenizer.decode(self._ids)[self._shown :]

    def _has_text(self, token: int) -> bool:
        return token < self._vocab_size and token not in self._special

    def _forget(self, held: int) -> None:
        """Drop ids that no longer matter, so that the work for a token stays bounded."""
        ids, text = self._latest(self._ids)
        if held <= len(text):
            self._whole = max(0, self._whole - len(self._ids) + len(ids))
            self._ids, self._shown = ids, len(text) - held

    def _latest(self, ids: list[int]) -> tuple[list[int], str]:
        """Some 8 ids from the end and their text, from the beginning of a character if there is one near."""
        latest, text = ids[-8:], self._tokenizer.decode(ids[-8:])
        for n in (9, 10, 11):
            if text.startswith("\ufffd"):
                latest, text = ids[-n:], self._tokenizer.decode(ids[-n:])
        return latest, text
