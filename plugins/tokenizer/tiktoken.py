"""Rank files: byte-pair encoding whose merges are given by each piece's rank, with a pattern that cuts text first.

Opens the `.tiktoken` files of OpenAI's and Llama 3's vocabularies (a line: the piece in base64, its rank) and Mistral's
tekken.json, through the `tiktoken` library.  https://github.com/openai/tiktoken
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field

from lamina.core import (
    BEGINS,
    ENDS,
    ByteLevelBPE,
    ComponentConfig,
    ConfigProblem,
    DataError,
    Register,
    Tokenizer,
    TokenKind,
    hookimpl,
    load_extra,
    show_bytes,
    spelt,
    told,
    usual,
)

RANKS, TEKKEN = "tokenizer.tiktoken", "tekken.json"
LARGEST_ID = 1 << 24
LETTERS_DOWN = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
LETTERS_UP = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
ENDING = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
PATTERNS = {  # as the encodings of these names are published
    "r50k": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "cl100k": ENDING + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "o200k": rf"[^\r\n\p{{L}}\p{{N}}]?{LETTERS_DOWN}{ENDING}?|[^\r\n\p{{L}}\p{{N}}]?{LETTERS_UP}{ENDING}?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}
Id = Annotated[int, Field(ge=0, lt=LARGEST_ID)]


class TiktokenConfig(ComponentConfig):
    path: str = Field(min_length=1, description="A .tiktoken rank file, or a tekken.json.")
    pattern: str | None = Field(
        None,
        min_length=1,
        description="What text is cut by before merging: r50k (GPT-2), cl100k (GPT-4, Llama 3), o200k, or a regular "
        "expression. Default: cl100k. A tekken.json has its own.",
    )
    special_tokens: dict[str, Id] = Field(
        {}, description="Special token -> id: a rank file has none of its own. A tekken.json has its own."
    )
    end_of_text: str | None = Field(
        None,
        min_length=1,
        description="The special token that ends a document. Default: the first there is of the usual names "
        "(<|endoftext|>, <|end_of_text|>, </s>, …).",
    )

    def derive(self) -> dict[str, object]:
        ids = list(self.special_tokens.values())
        if "" in self.special_tokens or len(set(ids)) != len(ids):
            raise ConfigProblem("special_tokens", "special tokens must have distinct ids and not be empty")
        return {}


@dataclass(frozen=True)
class Ranks:
    """What either file comes to."""

    pieces: dict[bytes, int]  # id, in the order of merging
    special: dict[str, int]
    pattern: str


class TiktokenTokenizer(Tokenizer):
    """Every Unicode text round-trips: all 256 bytes are pieces."""

    Config = TiktokenConfig
    paper = "tiktoken, OpenAI; Tekken, Mistral AI"

    @classmethod
    def examples(cls, directory: Path) -> list[dict[str, Any]]:
        pieces = [*(bytes((byte,)) for byte in range(256)), b"th", b"the", b" the", b"in", b"ing"]
        lines = (f"{base64.b64encode(piece).decode()} {rank}" for rank, piece in enumerate(pieces))
        (directory / "small.tiktoken").write_text("\n".join(lines))
        return [{"path": "small.tiktoken", "special_tokens": {"<|endoftext|>": 300}}]

    def __init__(self, ranks: Ranks, config: TiktokenConfig, file: bytes) -> None:
        library = load_extra("tiktoken", "'lamina[tiktoken]'", "tokenizer 'tiktoken'")
        self._config, self._file, self._special = config, file, ranks.special
        self._tekken = file.lstrip()[:1] == b"{"
        self._encoding: Any = library.Encoding(
            config.path, pat_str=ranks.pattern, mergeable_ranks=ranks.pieces, special_tokens=ranks.special
        )
        self._pattern = ranks.pattern
        self._bytes_of = {i: piece for piece, i in ranks.pieces.items()}
        self._text_of = {i: name for name, i in ranks.special.items()}
        self._length = {i: len(piece) for i, piece in self._bytes_of.items()}
        self._length |= {i: len(name.encode()) for name, i in ranks.special.items()}
        self._vocab_size = 1 + max(*self._bytes_of, *self._text_of)
        self._bos = usual(BEGINS, ranks.special)
        self._eos = usual(ENDS if config.end_of_text is None else [config.end_of_text], ranks.special)

    @classmethod
    def recognise(cls, folder: Path, names: frozenset[str]) -> str | None:
        if any(name.endswith("tokenizer.json") for name in names):
            return None
        for name in sorted(names, key=lambda name: (name != TEKKEN, name)):
            if name.endswith(".tiktoken") or (name.endswith(".json") and "tekken" in name):
                return name
            if ".model" in name and (folder / name).is_file():
                with open(folder / name, "rb") as file:
                    if rank(file.readline(200)) is not None:  # Llama 3 names its rank file like this
                        return name
        return None

    @classmethod
    def open(cls, config: TiktokenConfig, directory: Path) -> Self:
        path = directory / config.path
        data = cls.read_file(path)
        ranks = (
            read_tekken(cls.read_json(path), config, path)
            if data.lstrip()[:1] == b"{"
            else read_ranks(data, config, path)
        )
        if absent := [byte for byte in range(256) if bytes([byte]) not in ranks.pieces]:
            raise DataError(f"'{path}' has no piece for the byte {absent[0]}, so not every text can be cut")
        if b"" in ranks.pieces or "" in ranks.special:
            raise DataError(f"'{path}' is no vocabulary: one of its tokens is empty")
        if matches_nothing(ranks.pattern):
            raise DataError(
                f"the pattern {ranks.pattern[:60]!r} matches the empty text, so it cuts nothing",
                hint="use + where it has *",
            )
        if clash := sorted(set(ranks.special.values()) & set(ranks.pieces.values())):
            name = next(name for name, i in ranks.special.items() if i == clash[0])
            raise DataError(f"special token {name!r} and a piece of '{path}' both have the id {clash[0]}")
        if config.end_of_text is not None and config.end_of_text not in ranks.special:
            known = ", ".join(list(ranks.special)[:12]) or "none"
            raise DataError(
                f"'{path}' has no special token {config.end_of_text!r}", hint=f"its special tokens: {known}"
            )
        with told(
            f"'{path}' cannot be used", "is the pattern a regular expression that the regex library of Rust takes?"
        ):
            tokenizer = cls(ranks, config, data)
            tokenizer._encoding.encode_ordinary("a 1")
        return tokenizer

    def save(self, directory: Path) -> TiktokenConfig:
        name = TEKKEN if self._tekken else RANKS
        (directory / name).write_bytes(self._file)
        return self._config.model_copy(update={"path": name})

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

    def vocabulary(self) -> ByteLevelBPE:
        regex = load_extra("regex", "'lamina[tiktoken]'", "tokenizer 'tiktoken'")
        pattern = regex.compile(self._pattern)
        tokens, kinds = [f"[PAD{i}]" for i in range(self._vocab_size)], [TokenKind.UNUSED] * self._vocab_size
        for i, piece in self._bytes_of.items():
            tokens[i], kinds[i] = spelt(piece), TokenKind.NORMAL
        for i, name in self._text_of.items():
            tokens[i], kinds[i] = name, TokenKind.CONTROL
        pieces = {piece: i for i, piece in self._bytes_of.items()}
        merges = [(spelt(a), spelt(b)) for a, b in merges_of(pieces)]

        def cut(text: str) -> list[str]:
            return [spelt(found[0].encode()) for found in pattern.finditer(text)]

        return ByteLevelBPE(tokens, kinds, merges, cut, ignore_merges=True)

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        data = self.utf8(text)
        with told("the tokenizer cannot encode this text"):
            if allow_special:
                ids: list[int] = self._encoding.encode(text, allowed_special="all")
            else:
                ids = self._encoding.encode_ordinary(text)
        if sum(map(self._length.__getitem__, ids)) != len(data):
            raise DataError("the tokenizer's pattern matches only parts of this text, the rest would be lost")
        return ids

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        special = {} if skip_special else self._text_of
        pieces = (self._bytes_of[i] if i in self._bytes_of else special.get(i, "").encode() for i in ids)
        return b"".join(pieces).decode("utf-8", errors="replace")

    def token_bytes(self, ids: Sequence[int]) -> list[bytes | None]:
        return [self._bytes_of.get(i) for i in ids]

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        return [show_bytes(self._bytes_of[i]) if i in self._bytes_of else self._text_of.get(i, "") for i in ids]


def merges_of(pieces: Mapping[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The merges that ranks stand for: each piece comes of the last two that the better ranked ones leave of it."""
    found = []
    for piece, rank in sorted(pieces.items(), key=lambda item: item[1]):
        if len(piece) == 1:
            continue
        parts = [piece[i : i + 1] for i in range(len(piece))]
        while len(parts) > 2:
            ranks = [pieces.get(a + b, rank) for a, b in pairwise(parts)]
            best = min(range(len(ranks)), key=ranks.__getitem__)
            if ranks[best] >= rank:
                break
            parts[best : best + 2] = [parts[best] + parts[best + 1]]
        if len(parts) == 2:
            found.append((parts[0], parts[1]))
    return found


def matches_nothing(pattern: str) -> bool:
    """Whether a match may be empty, which the library's code does not survive."""
    regex = load_extra("regex", "'lamina[tiktoken]'", "tokenizer 'tiktoken'")  # which tiktoken brings

    try:
        return regex.fullmatch(pattern, "") is not None
    except regex.error:  # the library's own regular expressions will say
        return False


def rank(line: bytes) -> tuple[bytes, int] | None:
    """A line of a rank file; None when it is none."""
    piece, _, number = line.rstrip().partition(b" ")
    try:
        found = base64.b64decode(piece, validate=True), int(number)
    except ValueError:
        return None
    return found if found[0] and number.isdigit() and found[1] < LARGEST_ID else None


def read_ranks(data: bytes, config: TiktokenConfig, path: Path) -> Ranks:
    pieces: dict[bytes, int] = {}
    for number, line in enumerate(data.splitlines(), 1):
        if line.strip():
            found = rank(line)
            if found is None:
                shown = line[:60].decode("utf-8", errors="replace")
                raise DataError(
                    f"line {number} of '{path}' is {shown!r}, not a piece in base64 and its rank",
                    hint="name a .tiktoken rank file or a tekken.json; it may be cut short",
                )
            pieces[found[0]] = found[1]
    distinct(pieces, path)
    pattern = config.pattern or "cl100k"
    return Ranks(pieces, dict(config.special_tokens), PATTERNS.get(pattern, pattern))


def read_tekken(data: dict[str, Any], config: TiktokenConfig, path: Path) -> Ranks:
    """Ids: the special tokens come first, then the pieces by rank, as many as the vocabulary's size leaves room for."""
    if config.pattern is not None or config.special_tokens:
        raise DataError(
            f"`pattern` and `special_tokens` are not for '{path}', which has its own", hint="leave them out"
        )
    try:
        sizes = data["config"]
        n_special, size = int(sizes["default_num_special_tokens"]), int(sizes["default_vocab_size"])
        pattern = sizes["pattern"]
        pieces = {
            base64.b64decode(entry["token_bytes"], validate=True): n_special + int(entry["rank"])
            for entry in data["vocab"]
            if entry["rank"] < size - n_special
        }
        named = {int(entry["rank"]): str(entry["token_str"]) for entry in data.get("special_tokens") or OLD_SPECIAL}
        if (
            not isinstance(pattern, str)
            or not 0 <= n_special < size < LARGEST_ID
            or not named.keys() <= set(range(n_special))
        ):
            raise ValueError("its sizes do not fit each other")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"'{path}' is no tekken.json: {type(error).__name__} {error}", hint="it may be cut short"
        ) from None
    special = {named.get(i, f"<SPECIAL_{i}>"): i for i in range(n_special)}
    if len(special) != n_special:
        raise DataError(f"'{path}' has two special tokens of one name")
    distinct(pieces, path)
    return Ranks(pieces, special, pattern)


# The names that files without a list of their own mean, by id.
OLD_SPECIAL: list[dict[str, Any]] = [
    {"rank": i, "token_str": name}
    for i, name in enumerate(
        [
            "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
            "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]",
            "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]",
        ]
    )
]  # fmt: skip


def distinct(pieces: dict[bytes, int], path: Path) -> None:
    if not pieces:
        raise DataError(f"'{path}' has an empty vocabulary")
    if len(set(pieces.values())) != len(pieces) or min(pieces.values()) < 0:
        raise DataError(f"'{path}' is no vocabulary: two pieces have one rank")


@hookimpl
def register_components(register: Register) -> None:
    register("tiktoken", TiktokenTokenizer)
