"""SentencePiece: pieces of raw text, white space written ▁.  Kudo & Richardson 2018, arXiv:1808.06226.

Opens the `.model` files of published models (T5, Llama 2, Gemma, …) through the `sentencepiece` library and trains new
ones: Unigram or BPE, unknown characters spelt in bytes.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field

from lamina.core import (
    BEGINS,
    ENDS,
    ComponentConfig,
    ConfigProblem,
    DataError,
    Register,
    ScoredBPE,
    Tokenizer,
    TokenKind,
    hookimpl,
    load_extra,
    told,
    usual,
)

FILE = "tokenizer.model"
# Numbers of fields in a model file, a protocol buffer: of the whole, of a piece, of training and normalising.
PIECES, TRAINING, NORMALISING = 1, 2, 3
PIECE_KIND, MODEL_TYPE, CHARSMAP, ADDS_PREFIX, REMOVES_SPACES = 3, 3, 2, 3, 4
UNIGRAM, BPE = 1, 2
LONGEST = 4000  # bytes: longer lines are cut for training, because the library leaves them out


class SentencePieceConfig(ComponentConfig):
    path: str | None = Field(None, description="A .model file; without one the vocabulary is trained on the corpus.")
    model: Literal["unigram", "bpe"] | None = Field(
        None, description="What is trained. Default: unigram. A file says so itself."
    )
    special_tokens: list[str] = Field(
        [], description="Further special tokens: given ids when training; a file must have them already."
    )

    def derive(self) -> dict[str, object]:
        names = ["<unk>", "</s>", *self.special_tokens]
        if "" in names or len(set(names)) != len(names):
            raise ConfigProblem("special_tokens", "special tokens must be distinct, not empty, and not <unk> or </s>")
        return {}


class SentencePieceTokenizer(Tokenizer):
    """A vocabulary trained here round-trips every text without the character ▁, which comes back as a space. Of a
    published one, what its normaliser keeps: many drop a leading space and join runs of white space."""

    Config = SentencePieceConfig
    trainable = True
    paper = "Kudo & Richardson 2018, arXiv:1808.06226"

    def __init__(self, model: bytes, config: SentencePieceConfig) -> None:
        library = load_extra("sentencepiece", "'lamina[sentencepiece]'", "tokenizer 'sentencepiece'")
        self._config = config
        self._model: Any = library.SentencePieceProcessor(model_proto=model)
        n = self._model.vocab_size()
        self._special = {
            self._model.id_to_piece(i): i for i in range(n) if self._model.is_control(i) or self._model.is_unknown(i)
        }
        bos, eos = self._model.bos_id(), self._model.eos_id()
        self._bos = bos if bos >= 0 else usual(BEGINS, self._special)
        self._eos = eos if eos >= 0 else usual(ENDS, self._special)

    @classmethod
    def recognise(cls, folder: Path, names: frozenset[str]) -> str | None:
        if any(name.endswith("tokenizer.json") for name in names):
            return None
        for name in sorted(names, key=lambda name: (name != FILE, name)):
            if ".model" in name and (folder / name).is_file():
                with open(folder / name, "rb") as file:
                    if file.read(1) == b"\n":  # the first piece's tag, where text would begin with its first token
                        return name
        return None

    @classmethod
    def untrained(cls, config: SentencePieceConfig) -> bool:
        return config.path is None

    @classmethod
    def open(cls, config: SentencePieceConfig, directory: Path) -> Self:
        if config.path is None:
            raise DataError(
                "tokenizer 'sentencepiece' has no `path`: it has to be trained first", hint="run `lamina train`"
            )
        path = directory / config.path
        if config.model is not None:
            raise DataError(f"`model` is not for '{path}', which says itself what it is", hint="leave it out")
        data = cls.read_file(path)
        if not data:
            raise DataError(f"'{path}' is empty")
        with told(f"'{path}' is no SentencePiece model", "name the .model file that the sentencepiece library saves"):
            tokenizer = cls(data, config)
        if not tokenizer.vocab_size:
            raise DataError(f"'{path}' has an empty vocabulary")
        if absent := [name for name in config.special_tokens if name not in tokenizer.special_ids]:
            known = ", ".join(list(tokenizer.special_ids)[:12]) or "none"
            raise DataError(f"'{path}' has no special token {absent[0]!r}", hint=f"its special tokens: {known}")
        return tokenizer

    @classmethod
    def train(cls, config: SentencePieceConfig, texts: Iterable[str], vocab_size: int) -> Self:
        library = load_extra("sentencepiece", "'lamina[sentencepiece]'", "tokenizer 'sentencepiece'")
        least = 256 + 2 + len(config.special_tokens)
        if vocab_size <= least:
            raise DataError(
                f"vocab_size is {vocab_size}; 256 bytes and {2 + len(config.special_tokens)} special tokens take "
                f"{least} of it, characters come on top",
                hint="ask for a larger vocab_size",
            )
        written = io.BytesIO()
        with told("no vocabulary could be trained on this corpus", "ask for another vocab_size, or use more text"):
            library.SentencePieceTrainer.train(
                sentence_iterator=cls.lines(texts), model_writer=written, vocab_size=vocab_size,
                model_type=config.model or "unigram", control_symbols=config.special_tokens,
                unk_id=0, eos_id=1, bos_id=-1, pad_id=-1,
                byte_fallback=True, character_coverage=0.9995,
                normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=False,
                allow_whitespace_only_pieces=True, hard_vocab_limit=False, num_threads=1, minloglevel=2,
            )  # fmt: skip
        return cls(written.getvalue(), config)

    @classmethod
    def lines(cls, texts: Iterable[str]) -> Iterator[str]:
        """Pieces of the texts that are short enough to be learnt from."""
        empty = True
        for text in texts:
            cls.utf8(text)
            for line in text.splitlines():
                for start in range(0, len(line), LONGEST // 4):
                    empty = False
                    yield line[start : start + LONGEST // 4]
        if empty:
            raise DataError("the corpus has no text to learn a vocabulary from")

    def save(self, directory: Path) -> SentencePieceConfig:
        (directory / FILE).write_bytes(self._model.serialized_model_proto())
        return self._config.model_copy(update={"path": FILE, "model": None})

    @property
    def vocab_size(self) -> int:
        return int(self._model.vocab_size())

    @property
    def lossy(self) -> bool:
        return True

    @property
    def special_ids(self) -> dict[str, int]:
        return dict(self._special)

    @property
    def bos_id(self) -> int | None:
        return self._bos

    @property
    def eos_id(self) -> int | None:
        return self._eos

    def vocabulary(self) -> ScoredBPE | None:
        model, n = self._model, self.vocab_size
        told = fields(model.serialized_model_proto())
        training, normal = (fields(told[number][-1]) if number in told else {} for number in (TRAINING, NORMALISING))
        if training.get(MODEL_TYPE, [UNIGRAM])[-1] != BPE or normal.get(CHARSMAP, [b""])[-1]:
            return None
        if normal.get(REMOVES_SPACES, [1])[-1]:
            return None
        kinds = [
            TokenKind.UNKNOWN if model.is_unknown(i)
            else TokenKind.CONTROL if model.is_control(i)
            else TokenKind.BYTE if model.is_byte(i)
            else TokenKind.UNUSED if model.is_unused(i)
            else TokenKind.NORMAL
            for i in range(n)
        ]  # fmt: skip
        for i, piece in enumerate(told[PIECES]):
            if fields(piece).get(PIECE_KIND, [1])[-1] == TokenKind.USER_DEFINED:
                kinds[i] = TokenKind.USER_DEFINED
        tokens, scores = ([ask(i) for i in range(n)] for ask in (model.id_to_piece, model.get_score))
        return ScoredBPE(tokens, kinds, scores, add_prefix=bool(normal.get(ADDS_PREFIX, [1])[-1]))

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        self.utf8(text)
        if not allow_special:
            return list(self._model.encode(text))
        ids: list[int] = []
        for piece in self.split_special(text, self._special):
            ids += [self._special[piece]] if piece in self._special else self._model.encode(piece)
        return ids

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        n, special = self.vocab_size, set(self._special.values())
        if skip_special:
            return str(self._model.decode([i for i in ids if 0 <= i < n and i not in special]))
        text, run = "", []
        for i in ids:
            if i not in special:
                run += [i] if 0 <= i < n else []
                continue
            text += self._model.decode(run) + self._model.id_to_piece(i)
            run = []
        return text + str(self._model.decode(run))

    def token_bytes(self, ids: Sequence[int]) -> list[bytes | None]:
        return [self._token_bytes(i) for i in ids]

    def _token_bytes(self, token: int) -> bytes | None:
        if not 0 <= token < self.vocab_size or self._model.is_control(token) or self._model.is_unknown(token):
            return None
        piece = str(self._model.id_to_piece(token))
        return bytes.fromhex(piece[3:5]) if self._model.is_byte(token) else piece.replace("▁", " ").encode()

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        n = self.vocab_size
        return [str(self._model.id_to_piece(i)).replace("▁", " ") if 0 <= i < n else "" for i in ids]


def fields(data: bytes) -> dict[int, list[Any]]:
    """The fields of a protocol buffer by number: whole numbers, and bytes of what is nested."""
    found: dict[int, list[Any]] = {}
    place = 0

    def number() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = data[place]
            place += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while place < len(data):
        tag = number()
        wire = tag & 7
        value: Any = number() if wire == 0 else None
        if wire != 0:
            size = {1: 8, 5: 4}.get(wire) or number()
            value, place = data[place : place + size], place + size
        found.setdefault(tag >> 3, []).append(value)
    return found


@hookimpl
def register_components(register: Register) -> None:
    register("sentencepiece", SentencePieceTokenizer)
