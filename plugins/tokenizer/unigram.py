"""Unigram: pieces with probabilities, a text cut into the likeliest pieces.  Kudo 2018, arXiv:1804.10959.

P(x) = Π p(xᵢ); training starts from many pieces, fits p by expectation maximisation and drops those least missed. Over
bytes, with GPT-2's cutting into words.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Self

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from lamina.core import DataError, LibraryConfig, LibraryTokenizer, Register, add_special, hookimpl, told


class UnigramConfig(LibraryConfig):
    """A vocabulary trained here, or a tokenizer.json with a Unigram model."""


class UnigramTokenizer(LibraryTokenizer):
    """Every Unicode text round-trips through a vocabulary trained here; of a published one, only what its normaliser
    keeps. Training adds up in no fixed order: two runs may differ in pieces that are all but equally good."""

    Config = UnigramConfig
    trainable = True
    paper = "Kudo 2018, arXiv:1804.10959"
    model_types = ("Unigram",)

    @classmethod
    def untrained(cls, config: UnigramConfig) -> bool:
        return config.path is None

    @classmethod
    def open(cls, config: UnigramConfig, directory: Path) -> Self:
        if config.path is None:
            raise cls.no_path("unigram")
        return cls.finish(cls.read(directory / config.path), config, directory / config.path)

    @classmethod
    def train(cls, config: UnigramConfig, texts: Iterable[str], vocab_size: int) -> Self:
        special = cls.names(config)
        if vocab_size < 256 + len(special):
            raise DataError(
                f"vocab_size is {vocab_size}; a Unigram vocabulary over bytes takes at least {256 + len(special)}",
                hint="ask for a larger vocab_size, or use tokenizer 'character'",
            )
        tokenizer = over_bytes(models.Unigram())
        alphabet = frozenset(pre_tokenizers.ByteLevel.alphabet())
        trainer = trainers.UnigramTrainer(
            vocab_size=vocab_size, special_tokens=special, initial_alphabet=sorted(alphabet), show_progress=False
        )
        with told("no vocabulary could be trained on this corpus"):
            tokenizer.train_from_iterator(cls.texts(texts), trainer)
        learnt = dict(json.loads(tokenizer.to_str())["model"]["vocab"])
        pieces = {piece: score for piece, score in learnt.items() if piece not in special}
        tokenizer = over_bytes(models.Unigram(ordered(special, pieces, alphabet, vocab_size)))
        add_special(tokenizer, special)
        return cls.finish(tokenizer, config)


def ordered(
    special: list[str], pieces: dict[str, float], alphabet: frozenset[str], vocab_size: int
) -> list[tuple[str, float]]:
    """The vocabulary, at most `vocab_size` large, without what changes from run to run: the order of equal pieces, last
    digits, and the scores of bytes that were hardly seen, which the library gives in steps of 0.0001, in any order."""
    lowest = min(pieces.values())
    rare = {piece for piece, score in pieces.items() if piece in alphabet and score < lowest + 1e-4 * len(alphabet)}
    scores = {piece: round(lowest if piece in rare else score, 6) for piece, score in pieces.items()}
    ranked = sorted(scores, key=lambda piece: (piece not in alphabet, -scores[piece], piece))
    kept = sorted(ranked[: vocab_size - len(special)], key=lambda piece: (-scores[piece], piece))
    return [*((name, 0.0) for name in special), *((piece, scores[piece]) for piece in kept)]


def over_bytes(model: models.Unigram) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


@hookimpl
def register_components(register: Register) -> None:
    register("unigram", UnigramTokenizer)
