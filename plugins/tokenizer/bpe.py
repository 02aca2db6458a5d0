"""Byte-level byte-pair encoding: merge the most frequent pair of neighbouring pieces until the vocabulary is full.

Sennrich et al. 2016, arXiv:1508.07909; over bytes, with GPT-2's cutting into words: Radford et al. 2019.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Self

import tokenizers
from pydantic import Field
from tokenizers import decoders, models, pre_tokenizers, trainers

from lamina.core import (
    DataError,
    LibraryConfig,
    LibraryTokenizer,
    Register,
    SpecialFiles,
    add_special,
    hookimpl,
)

FILE = "tokenizer.json"
VOCAB, MERGES = "vocab.json", "merges.txt"


class BPEConfig(LibraryConfig):
    path: str | None = Field(
        None,
        description="A tokenizer.json, or a vocab.json that has its merges.txt beside it; without one the vocabulary "
        "is trained on the corpus.",
    )


class BPETokenizer(LibraryTokenizer):
    """Byte-level BPE. Every Unicode text round-trips through a vocabulary trained here."""

    Config = BPEConfig
    trainable = True
    paper = "Sennrich et al. 2016, arXiv:1508.07909"
    model_types = ("BPE",)

    @classmethod
    def untrained(cls, config: BPEConfig) -> bool:
        return config.path is None

    @classmethod
    def recognise(cls, folder: Path, names: frozenset[str]) -> str | None:
        return VOCAB if VOCAB in names and FILE not in names and (folder / MERGES).is_file() else None

    @classmethod
    def open(cls, config: BPEConfig, directory: Path) -> Self:
        if config.path is None:
            raise cls.no_path("bpe")
        path = directory / config.path
        merges = path.with_name(MERGES)
        data = cls.read_json(path) if path.name != FILE and path.suffix == ".json" and merges.is_file() else None
        if data is None or "model" in data:
            return cls.finish(cls.read(path), config, path)
        tokenizer = cls.checked(byte_level(cls.pairs(data, path, merges)), path)
        SpecialFiles.read(path.parent).apply(tokenizer)
        add_special(tokenizer, cls.names(config))
        return cls.finish(tokenizer, config, path)

    @classmethod
    def pairs(cls, vocab: dict[str, int], path: Path, merges: Path) -> models.BPE:
        """The model of a vocab.json, already read, and its merges.txt."""
        try:
            lines = cls.read_file(merges).decode("utf-8").split("\n")
        except UnicodeDecodeError as error:
            raise DataError(f"'{merges}' is not UTF-8: {error}") from None
        found = []
        for number, line in enumerate(lines, 1):
            line = line.rstrip("\r")
            if line and not line.startswith("#version"):
                a, _, b = line.partition(" ")
                if not a or not b or " " in b or not {a, b, a + b} <= vocab.keys():
                    what = f"line {number} of '{merges}' merges {line!r}, which are not two pieces of '{path.name}'"
                    raise DataError(what, hint="are the two files of one vocabulary?")
                found.append((a, b))
        if wrong := [name for name, i in vocab.items() if type(i) is not int or not 0 <= i < 1 << 32]:
            raise DataError(f"'{path}' is no vocabulary: the id of {wrong[0]!r} is {vocab[wrong[0]]!r}")
        try:
            return models.BPE(vocab, found)
        except Exception as error:  # the library raises no narrower class
            raise DataError(f"'{path}' and '{merges.name}' are no vocabulary: {error}") from error

    @classmethod
    def train(cls, config: BPEConfig, texts: Iterable[str], vocab_size: int) -> Self:
        special = cls.names(config)
        if vocab_size < 256 + len(special):
            raise DataError(
                f"vocab_size is {vocab_size}; byte-level BPE takes at least {256 + len(special)}: "
                f"256 bytes and {len(special)} special token{'s' if len(special) > 1 else ''}",
                hint="ask for a larger vocab_size, or use tokenizer 'character'",
            )
        tokenizer = byte_level(models.BPE())
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),  # bytes the corpus lacks are tokens all the same
            show_progress=False,
        )
        tokenizer.train_from_iterator(cls.texts(texts), trainer)
        return cls.finish(tokenizer, config)


def byte_level(model: models.BPE) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


@hookimpl
def register_components(register: Register) -> None:
    register("bpe", BPETokenizer)
