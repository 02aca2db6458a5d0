"""WordPiece: a word is cut, from the left, into the longest pieces there are; pieces inside a word begin with ##.

Schuster & Nakajima 2012; greedy cutting and white space as in BERT: Devlin et al. 2018, arXiv:1810.04805.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Self

import tokenizers
from pydantic import Field
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from lamina.core import (
    DataError,
    LibraryConfig,
    LibraryTokenizer,
    Register,
    SpecialFiles,
    add_special,
    hookimpl,
    told,
)

FILE, VOCAB = "tokenizer.json", "vocab.txt"
UNKNOWN = "[UNK]"
USUAL = ("[PAD]", UNKNOWN, "[CLS]", "[SEP]", "[MASK]")


class WordPieceConfig(LibraryConfig):
    path: str | None = Field(
        None,
        description="A tokenizer.json, or a vocab.txt with a piece a line; without one the vocabulary is trained on "
        "the corpus.",
    )
    lowercase: bool | None = Field(
        None,
        description="Lower case and no accents. Default: false when training and for a vocab.txt. A tokenizer.json "
        "says so itself.",
    )


class WordPieceTokenizer(LibraryTokenizer):
    """Does not round-trip every text: runs of white space become one space, spaces around punctuation are guessed,
    control characters are dropped, and a word with a piece that is not in the vocabulary becomes [UNK]."""

    Config = WordPieceConfig
    trainable = True
    paper = "Schuster & Nakajima 2012; Devlin et al. 2018, arXiv:1810.04805"
    model_types = ("WordPiece",)

    @classmethod
    def untrained(cls, config: WordPieceConfig) -> bool:
        return config.path is None

    @classmethod
    def recognise(cls, folder: Path, names: frozenset[str]) -> str | None:
        return VOCAB if VOCAB in names and FILE not in names else None

    @classmethod
    def open(cls, config: WordPieceConfig, directory: Path) -> Self:
        if config.path is None:
            raise cls.no_path("wordpiece")
        path = directory / config.path
        if path.suffix != ".txt":
            if config.lowercase is not None:
                raise DataError(
                    f"`lowercase` is not for '{path}', which says itself what is done to text", hint="leave it out"
                )
            return cls.finish(cls.read(path), config, path)
        tokenizer = like_bert(models.WordPiece(cls.pieces(path), unk_token=UNKNOWN), bool(config.lowercase))
        SpecialFiles.read(path.parent).apply(tokenizer)
        add_special(tokenizer, [*USUAL, *cls.names(config)])
        return cls.finish(tokenizer, config, path)

    @classmethod
    def pieces(cls, path: Path) -> dict[str, int]:
        """A vocab.txt: piece -> number of its line from 0."""
        try:
            lines = cls.read_file(path).decode("utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise DataError(f"'{path}' is no vocabulary: it is not UTF-8 ({error})") from None
        found = {piece: i for i, piece in enumerate(lines)}
        if UNKNOWN not in found:
            raise DataError(f"'{path}' is no WordPiece vocabulary: it has no line {UNKNOWN}")
        return found

    @classmethod
    def train(cls, config: WordPieceConfig, texts: Iterable[str], vocab_size: int) -> Self:
        tokenizer = like_bert(models.WordPiece({UNKNOWN: 0}, unk_token=UNKNOWN), bool(config.lowercase))
        special = [*cls.names(config), UNKNOWN]
        trainer = trainers.WordPieceTrainer(
            vocab_size=vocab_size,
            special_tokens=special,
            limit_alphabet=min(1000, vocab_size // 2),
            show_progress=False,
        )
        with told("no vocabulary could be trained on this corpus"):
            tokenizer.train_from_iterator(cls.texts(texts), trainer)
        if tokenizer.get_vocab_size() > vocab_size:
            raise DataError(
                f"vocab_size is {vocab_size}; characters of this corpus and special tokens alone take "
                f"{tokenizer.get_vocab_size()}",
                hint="ask for a larger vocab_size",
            )
        tokenizer = like_bert(models.WordPiece(tokenizer.get_vocab(), unk_token=UNKNOWN), bool(config.lowercase))
        add_special(tokenizer, cls.names(config))  # and not the unknown one: it stands for text, and is shown
        return cls.finish(tokenizer, config)

    def save(self, directory: Path) -> WordPieceConfig:
        config: WordPieceConfig = super().save(directory)
        return config.model_copy(update={"lowercase": None})


def like_bert(model: models.WordPiece, lowercase: bool) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


@hookimpl
def register_components(register: Register) -> None:
    register("wordpiece", WordPieceTokenizer)
