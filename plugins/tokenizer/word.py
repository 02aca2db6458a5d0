"""Words: the most frequent words of the training text are tokens, all others are one unknown token.

As in the word-level corpora of Mikolov et al. 2010 and WikiText (Merity et al. 2016, arXiv:1609.07843), but white space
is kept: each of its characters is a token.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, Self

import tokenizers
from pydantic import Field
from tokenizers import Regex, decoders, models, pre_tokenizers

from lamina.core import DataError, LibraryConfig, LibraryTokenizer, Register, add_special, hookimpl

UNKNOWN = "<unk>"
PIECES = {"word": r"\w+|\s|[^\w\s]", "white_space": r"\S+|\s"}


class WordConfig(LibraryConfig):
    split: Literal["word", "white_space"] | None = Field(
        None,
        description="word: letters and digits together, every other character by itself; white_space: all that stands "
        "between white space. Default: word. A file says so itself.",
    )


class WordTokenizer(LibraryTokenizer):
    """A text round-trips if every word, mark and white-space character of it is in the vocabulary. A word that is not
    becomes <unk>, and its letters are lost."""

    Config = WordConfig
    trainable = True
    paper = "Merity et al. 2016, arXiv:1609.07843"
    model_types = ("WordLevel",)

    @classmethod
    def untrained(cls, config: WordConfig) -> bool:
        return config.path is None

    @classmethod
    def open(cls, config: WordConfig, directory: Path) -> Self:
        if config.path is None:
            raise cls.no_path("word")
        path = directory / config.path
        if config.split is not None:
            raise DataError(f"`split` is not for '{path}', which says itself how a text is cut", hint="leave it out")
        return cls.finish(cls.read(path), config, path)

    @classmethod
    def train(cls, config: WordConfig, texts: Iterable[str], vocab_size: int) -> Self:
        special = cls.names(config)
        if vocab_size < len(special) + 2:
            raise DataError(f"vocab_size is {vocab_size}; a vocabulary of words takes at least {len(special) + 2}")
        cut = pre_tokenizers.Split(Regex(PIECES[config.split or "word"]), "isolated")
        counts = Counter(word for text in cls.texts(texts) for word, _ in cut.pre_tokenize_str(text))
        names = [*special, UNKNOWN]
        frequent = sorted(counts.keys() - set(names), key=lambda word: (-counts[word], word))
        vocab = {word: i for i, word in enumerate([*names, *frequent[: vocab_size - len(names)]])}
        tokenizer = tokenizers.Tokenizer(models.WordLevel(vocab, unk_token=UNKNOWN))
        tokenizer.pre_tokenizer = cut
        tokenizer.decoder = decoders.Fuse()
        add_special(tokenizer, special)
        return cls.finish(tokenizer, config)

    def save(self, directory: Path) -> WordConfig:
        config: WordConfig = super().save(directory)
        return config.model_copy(update={"split": None})


@hookimpl
def register_components(register: Register) -> None:
    register("word", WordTokenizer)
