"""WordPiece: a word is cut, from the left, into the longest pieces there are; pieces inside a word begin with ##.

Schuster & Nakajima 2012; greedy cutting and white space as in BERT: Devlin et al. 2018, arXiv:1810.04805.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
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
)

FILE, VOCAB = "tokenizer.json", "vocab.txt"
UNKNOWN = "[UNK]"
MOST_LETTERS = 1000
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
    control characters are dropped, and a word with a piece that is not in the vocabulary becomes [UNK]. Trained here,
    it has the most frequent letters that half the vocabulary has room for, at most 1000."""

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
        names = [*cls.names(config), UNKNOWN]
        if vocab_size < len(names) + 2:
            raise DataError(f"vocab_size is {vocab_size}; a WordPiece vocabulary takes at least {len(names) + 2}")
        tokenizer = like_bert(models.WordPiece({UNKNOWN: 0}, unk_token=UNKNOWN), bool(config.lowercase))
        normalise, cut = tokenizer.normalizer.normalize_str, tokenizer.pre_tokenizer.pre_tokenize_str
        counts = Counter(word for text in cls.texts(texts) for word, _ in cut(normalise(text)))
        letters: Counter[str] = Counter()
        for word, count in counts.items():
            letters.update(dict.fromkeys(word, count))
        room = min(MOST_LETTERS, (vocab_size - len(names)) // 2)  # each may stand first in a word and inside one
        kept = frozenset(sorted(letters, key=lambda letter: (-letters[letter], letter))[:room])
        words = {word: count for word, count in sorted(counts.items()) if kept.issuperset(word)}
        inner = {f"##{letter}" for word in words for letter in word[1:]}
        # The library numbers letters as it meets them, in no fixed order, unless they come as special tokens.
        first = list(dict.fromkeys([*names, *sorted(kept), *sorted(inner)]))
        trainer = trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=first, show_progress=False)
        learner = tokenizers.Tokenizer(models.WordPiece({UNKNOWN: 0}, unk_token=UNKNOWN))
        learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        learner.train_from_iterator(repeated(words), trainer)
        tokenizer.model = models.WordPiece(learner.get_vocab(), unk_token=UNKNOWN)
        add_special(tokenizer, cls.names(config))  # and not the unknown one: it stands for text, and is shown
        return cls.finish(tokenizer, config)

    def save(self, directory: Path) -> WordPieceConfig:
        config: WordPieceConfig = super().save(directory)
        return config.model_copy(update={"lowercase": None})


def repeated(words: Mapping[str, int]) -> Iterator[str]:
    """A text in which each word stands as often as it says."""
    for word, count in words.items():
        for start in range(0, count, 1000):
            yield f"{word} " * min(1000, count - start)


def like_bert(model: models.WordPiece, lowercase: bool) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


@hookimpl
def register_components(register: Register) -> None:
    register("wordpiece", WordPieceTokenizer)
