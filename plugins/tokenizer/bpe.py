"""Byte-level byte-pair encoding: merge the most frequent pair of neighbouring pieces until the vocabulary is full.

Sennrich et al. 2016, arXiv:1508.07909; over bytes, with GPT-2's cutting into words: Radford et al. 2019. Through the
`tokenizers` library, whose tokenizer.json of any model (Unigram and WordPiece too) opens here as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Self

import tokenizers
from pydantic import Field
from tokenizers import decoders, models, pre_tokenizers, trainers

from lamina.core import ComponentConfig, ConfigProblem, DataError, Register, Tokenizer, hookimpl

FILE = "tokenizer.json"
END_OF_TEXT = "<|endoftext|>"
# What published vocabularies call the tokens that begin and end a document, the likelier first.
BEGINS = ("<|begin_of_text|>", "<｜begin▁of▁sentence｜>", "<bos>", "<s>", "<|startoftext|>")
ENDS = (END_OF_TEXT, "<|end_of_text|>", "<｜end▁of▁sentence｜>", "<eos>", "</s>", "<|im_end|>")


class BPEConfig(ComponentConfig):
    path: str | None = Field(None, description="A tokenizer.json; without one the vocabulary is trained on the corpus.")
    end_of_text: str = Field(
        END_OF_TEXT,
        min_length=1,
        description="The special token that ends a document. Left alone, a file that has no such token may use another "
        "of the usual names (</s>, <eos>, …).",
    )
    special_tokens: list[str] = Field(
        [], description="Further special tokens: given ids when training; a file must have them already."
    )

    def derive(self) -> dict[str, object]:
        names = [self.end_of_text, *self.special_tokens]
        if "" in names or len(set(names)) != len(names):
            raise ConfigProblem("special_tokens", "special tokens must be distinct and not empty")
        return {}


class BPETokenizer(Tokenizer):
    """Byte-level BPE. Every Unicode text round-trips through a vocabulary trained here."""

    Config = BPEConfig
    trainable = True
    paper = "Sennrich et al. 2016, arXiv:1508.07909"

    def __init__(self, tokenizer: tokenizers.Tokenizer, config: BPEConfig) -> None:
        tokenizer.no_truncation()  # a file may ask for either; here they would lose or invent text
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True  # what looks like a special token is encoded as text
        self._plain, self._config = tokenizer, config
        self._special = {
            token.content: i for i, token in sorted(tokenizer.get_added_tokens_decoder().items()) if token.special
        }
        self._vocab_size = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        self._bos = next((self._special[name] for name in BEGINS if name in self._special), None)
        ends = (config.end_of_text, *ENDS) if config.end_of_text == END_OF_TEXT else (config.end_of_text,)
        self._eos = next((self._special[name] for name in ends if name in self._special), None)

    @classmethod
    def untrained(cls, config: BPEConfig) -> bool:
        return config.path is None

    @classmethod
    def open(cls, config: BPEConfig, directory: Path) -> Self:
        if config.path is None:
            raise DataError("tokenizer 'bpe' has no `path`: it has to be trained first", hint="run `lamina train`")
        path = directory / config.path
        data = cls.read_file(path)
        try:
            tokenizer = cls(tokenizers.Tokenizer.from_buffer(data), config)
        except BaseException as error:  # a panic in the library's Rust code is no Exception
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise DataError(
                f"'{path}' is no tokenizer.json: {error}", hint="name the file that the `tokenizers` library saves"
            ) from error
        if tokenizer.vocab_size == 0:
            raise DataError(f"'{path}' has an empty vocabulary")
        default = config.end_of_text == END_OF_TEXT
        wanted = [*([] if default else [config.end_of_text]), *config.special_tokens]
        if absent := [name for name in wanted if name not in tokenizer.special_ids]:
            known = ", ".join(list(tokenizer.special_ids)[:12]) or "none"
            raise DataError(f"'{path}' has no special token {absent[0]!r}", hint=f"its special tokens: {known}")
        return tokenizer

    @classmethod
    def train(cls, config: BPEConfig, texts: Iterable[str], vocab_size: int) -> Self:
        special = [config.end_of_text, *config.special_tokens]
        if vocab_size < 256 + len(special):
            raise DataError(
                f"vocab_size is {vocab_size}; byte-level BPE takes at least {256 + len(special)}: "
                f"256 bytes and {len(special)} special token{'s' if len(special) > 1 else ''}",
                hint="ask for a larger vocab_size, or use tokenizer 'character'",
            )
        tokenizer = tokenizers.Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),  # bytes the corpus lacks are tokens all the same
            show_progress=False,
        )
        tokenizer.train_from_iterator((cls._checked(text) for text in texts), trainer)
        return cls(tokenizer, config)

    def save(self, directory: Path) -> BPEConfig:
        (directory / FILE).write_text(self._plain.to_str(), encoding="utf-8")
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

    @cached_property
    def _with_special(self) -> tokenizers.Tokenizer:
        # A second one: flipping the switch on the first would open another thread's text to special tokens.
        other = tokenizers.Tokenizer.from_str(self._plain.to_str())
        other.encode_special_tokens = False
        return other

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        tokenizer = self._with_special if allow_special else self._plain
        text = self._checked(text)
        try:
            return tokenizer.encode(text, add_special_tokens=False).ids
        except Exception as error:  # the library raises no narrower class
            raise DataError(f"the tokenizer cannot encode this text: {error}") from error

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        return self._plain.decode(ids, skip_special_tokens=skip_special)

    @classmethod
    def _checked(cls, text: str) -> str:
        cls.utf8(text)
        return text


@hookimpl
def register_components(register: Register) -> None:
    register("bpe", BPETokenizer)
