"""What tokenizers have in common that the `tokenizers` library runs, whatever their model. Imports no torch."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import tokenizers
from pydantic import Field
from tokenizers import AddedToken

from lamina.core.component import ComponentConfig
from lamina.core.errors import ConfigProblem, DataError
from lamina.core.library_vocabulary import halves, vocabulary_of
from lamina.core.tokenizer import BEGINS, ENDS, Tokenizer, show_bytes, usual
from lamina.core.vocabulary import BYTE_OF, Vocabulary, bytes_of

FILE = "tokenizer.json"
END_OF_TEXT = ENDS[0]


class LibraryConfig(ComponentConfig):
    """Options of a tokenizer that is trained here or read from a file. Kinds of vocabulary add their own."""

    path: str | None = Field(None, description="A tokenizer.json; without one the vocabulary is trained on the corpus.")
    end_of_text: str | None = Field(
        None,
        min_length=1,
        description="The special token that ends a document. Default: <|endoftext|> when training; in a file the first "
        "it has of the usual names (<|endoftext|>, </s>, <eos>, …).",
    )
    special_tokens: list[str] = Field(
        [], description="Further special tokens: given ids when training; a file must have them already."
    )

    def derive(self) -> dict[str, object]:
        names = [self.end_of_text or END_OF_TEXT, *self.special_tokens]
        if "" in names or len(set(names)) != len(names):
            raise ConfigProblem("special_tokens", "special tokens must be distinct and not empty")
        return {}


class LibraryTokenizer(Tokenizer):
    """Base of the components the library runs. A subclass says which models it takes and how its own is trained."""

    model_types: ClassVar[tuple[str, ...]] = ()  # of the files it opens; () for any

    def __init__(self, tokenizer: tokenizers.Tokenizer, config: Any, bos_id: int | None, eos_id: int | None) -> None:
        tokenizer.no_truncation()  # a file may ask for either; here they would lose or invent text
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True  # what looks like a special token is encoded as text
        self._tokenizer, self._config = tokenizer, config
        self._bos, self._eos = bos_id, eos_id
        self._special = special_of(tokenizer)
        self._vocab_size = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        with told("the vocabulary cannot be used"):
            self._plain = _unspellable(tokenizer, self._special)
        decoder = tokenizer.decoder
        decoding = b"" if decoder is None else decoder.__getstate__()
        self._byte_level, self._spells = b"ByteLevel" in decoding, b"ByteFallback" in decoding

    # What subclasses build on: read or train a library tokenizer, then `finish`

    @classmethod
    def read(cls, path: Path) -> tokenizers.Tokenizer:
        """The tokenizer.json at `path`, or DataError naming it."""
        data = cls.read_file(path)
        with told(f"'{path}' is no tokenizer.json", "name the file that the `tokenizers` library saves"):
            return cls.checked(tokenizers.Tokenizer.from_buffer(data), path)

    @classmethod
    def checked(cls, tokenizer: tokenizers.Tokenizer, path: Path) -> tokenizers.Tokenizer:
        """`tokenizer`, read from `path`, or DataError when it is of another type or knows nothing."""
        found = type(tokenizer.model).__name__
        if cls.model_types and found not in cls.model_types:
            raise DataError(
                f"'{path}' holds a {found} vocabulary, not {' or '.join(cls.model_types)}",
                hint=f"use {{name: tokenizer_json, path: {path.name}}}",
            )
        if not tokenizer.get_vocab(with_added_tokens=True):
            raise DataError(f"'{path}' has an empty vocabulary")
        return tokenizer

    @classmethod
    def finish(cls, tokenizer: tokenizers.Tokenizer, config: LibraryConfig, path: str | Path = "corpus") -> Self:
        """With the special tokens that `config` asks for, or DataError when what was read from `path` lacks one."""
        special = special_of(tokenizer)
        wanted = [*([] if config.end_of_text is None else [config.end_of_text]), *config.special_tokens]
        if absent := [name for name in wanted if name not in special]:
            known = ", ".join(list(special)[:12]) or "none"
            raise DataError(f"'{path}' has no special token {absent[0]!r}", hint=f"its special tokens: {known}")
        eos = usual(ENDS, special) if config.end_of_text is None else special[config.end_of_text]
        return cls(tokenizer, config, usual(BEGINS, special), eos)

    @classmethod
    def no_path(cls, name: str) -> DataError:
        return DataError(f"tokenizer '{name}' has no `path`: it has to be trained first", hint="run `lamina train`")

    @classmethod
    def names(cls, config: LibraryConfig) -> list[str]:
        """The special tokens of a vocabulary trained with `config`, the one that ends a document first."""
        return [config.end_of_text or END_OF_TEXT, *config.special_tokens]

    @classmethod
    def texts(cls, texts: Iterable[str]) -> Iterator[str]:
        """Each of `texts`, or DataError for one that is no Unicode text and when there is nothing in any of them."""
        empty = True
        for text in texts:
            cls.utf8(text)
            empty = empty and not text
            yield text
        if empty:
            raise DataError("the corpus has no text to learn a vocabulary from")

    # A tokenizer's interface

    def save(self, directory: Path) -> Any:
        (directory / FILE).write_text(self._tokenizer.to_str(), encoding="utf-8")
        return self._config.model_copy(update={"path": FILE})

    @property
    def vocab_size(self) -> int:
        return self._vocab_size

    @property
    def special_ids(self) -> dict[str, int]:
        return dict(self._special)

    @property
    def bos_id(self) -> int | None:
        return self._bos

    @property
    def eos_id(self) -> int | None:
        return self._eos

    def vocabulary(self) -> Vocabulary | None:
        return vocabulary_of(self._tokenizer)

    @cached_property
    def _with_special(self) -> tokenizers.Tokenizer:
        # A second one: flipping the switch on the first would open another thread's text to special tokens.
        other = tokenizers.Tokenizer.from_str(self._tokenizer.to_str())
        other.encode_special_tokens = False
        return other

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        self.utf8(text)
        tokenizer = self._with_special if allow_special else self._plain
        with told("the tokenizer cannot encode this text"):
            return tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=skip_special)

    @cached_property
    def lossy(self) -> bool:
        """False where every text is sure to come back: bytes are pieces, nothing is normalised or left out."""
        state = json.loads(self._tokenizer.to_str())
        cutting = json.dumps(state["pre_tokenizer"])
        strips = any(token["lstrip"] or token["rstrip"] for token in state["added_tokens"])
        loses = '"Removed"' in cutting or "Whitespace" in cutting or '"add_prefix_space": true' in cutting
        vocab = self._tokenizer.get_vocab(with_added_tokens=False)
        whole = self._byte_level and '"ByteLevel"' in cutting and BYTE_OF.keys() <= vocab.keys()
        return not whole or strips or loses or state["normalizer"] is not None

    def token_bytes(self, ids: Sequence[int]) -> list[bytes | None]:
        special = frozenset(self._special.values())
        pieces = [None if i in special else self._tokenizer.id_to_token(i) for i in ids]
        if self._byte_level:
            return [None if piece is None else bytes_of(piece) for piece in pieces]
        spelt = [None if piece is None else re.fullmatch("<0x([0-9A-F]{2})>", piece) for piece in pieces]
        plain = super().token_bytes(ids)
        return [
            bytes.fromhex(byte[1]) if byte and self._spells else text for byte, text in zip(spelt, plain, strict=True)
        ]

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        special = {i: name for name, i in self._special.items()}
        pieces = [special.get(i, self._tokenizer.id_to_token(i) or "") for i in ids]
        if not self._byte_level:
            return [piece.replace("▁", " ") for piece in pieces]
        known = [i in special for i in ids]
        return [piece if k else show_bytes(bytes_of(piece)) for piece, k in zip(pieces, known, strict=True)]


@contextmanager
def told(what: str, hint: str = "") -> Iterator[None]:
    """The library's errors as a DataError that says `what`. A panic in its Rust code is no Exception."""
    try:
        yield
    except DataError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        why = " ".join(str(error).split())
        raise DataError(f"{what}: {why[:300]}", hint=hint) from error


def special_of(tokenizer: tokenizers.Tokenizer) -> dict[str, int]:
    """Special token text -> id, by id."""
    return {token.content: i for i, token in sorted(tokenizer.get_added_tokens_decoder().items()) if token.special}


def add_special(tokenizer: tokenizers.Tokenizer, names: Iterable[str]) -> None:
    """Make tokens of the vocabulary special; a name without an id is left alone."""
    known = special_of(tokenizer)
    for name in names:
        if name not in known and tokenizer.token_to_id(name) is not None:
            tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False)])


def _unspellable(tokenizer: tokenizers.Tokenizer, special: Mapping[str, int]) -> tokenizers.Tokenizer:
    """One that gives the same ids but no special one, whatever the text.

    Special tokens that are also pieces of the model can come out of plain text: a Unigram model finds `</s>` in its
    vocabulary like any word. They get names that nobody can guess.
    """
    named = special.keys() & tokenizer.get_vocab(with_added_tokens=False).keys()
    if not named:
        return tokenizer
    state = json.loads(tokenizer.to_str())
    model = state["model"]
    if model.get("type") == "BPE" and not model.get("ignore_merges"):
        merged = {_join(merge, model) for merge in model["merges"]}
        named = {name for name in named if name in merged or len(name) == 1}
        if not named:
            return tokenizer
    rename = {name: f"{name}{secrets.token_hex(16)}" for name in named}
    vocab = model["vocab"]
    if isinstance(vocab, list):
        model["vocab"] = [[rename.get(piece, piece), score] for piece, score in vocab]
    else:
        model["vocab"] = {rename.get(piece, piece): i for piece, i in vocab.items()}
    if "merges" in model:
        merges = [merge for merge in model["merges"] if not {*halves(merge), _join(merge, model)} & named]
        model["merges"] = merges
    if model.get("unk_token") in rename:
        model["unk_token"] = rename[model["unk_token"]]
    for token in state["added_tokens"]:
        token["content"] = rename.get(token["content"], token["content"])
    state["post_processor"] = None  # it may name the tokens, and adds nothing here
    other = tokenizers.Tokenizer.from_str(json.dumps(state))
    other.encode_special_tokens = True
    return other


def _join(merge: str | list[str], model: Mapping[str, Any]) -> str:
    """What two pieces of a BPE model become: the mark of pieces inside a word goes from the second."""
    a, b = halves(merge)
    return a + b.removeprefix(model.get("continuing_subword_prefix") or "")
