"""The tokenizer of a GGUF, which lies in its metadata: to the files of a Hugging Face directory, and from a tokenizer.

Two kinds of vocabulary: `gpt2`, byte-level BPE with merges, cut beforehand by a rule that has a name; and `llama`,
SentencePiece's BPE, with a score for each piece and bytes as its last resort.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers

from lamina.core.errors import ModelError
from lamina.core.gguf.pre_tokenizers import CUTTINGS, cutting, name_of, pre_tokenizer
from lamina.core.library_tokenizer import told
from lamina.core.tokenizer import Tokenizer
from lamina.core.vocabulary import ByteLevelBPE, ScoredBPE, TokenKind

PREFIX, TEMPLATE = "tokenizer.ggml.", "tokenizer.chat_template"
ROLES = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
ENDS = ("eos", "eot", "eom")
BYTES_KIND, PIECES_KIND, NONE_KINDS = "gpt2", "llama", ("none", "no_vocab")
NO_TOKENIZER = {f"{PREFIX}model": "no_vocab"}
SPACE = "▁"
PADDING = "[PAD{}]"  # what llama.cpp calls ids without a token
# What llama.cpp does where a file does not say whether texts begin with the special token for that.
BEGUN = ("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "tekken")


class Entries:
    """The entries below `tokenizer.ggml.`, checked."""

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self.all = {key.removeprefix(PREFIX): value for key, value in metadata.items() if key.startswith(PREFIX)}
        self.kind = self.all.get("model", NONE_KINDS[0])
        self.tokens: list[str] = self.listed("tokens", str)
        self.kinds: list[int] = self.listed("token_type", int) or [TokenKind.NORMAL] * len(self.tokens)
        if len(self.kinds) != len(self.tokens):
            raise ModelError(f"{PREFIX}token_type: {len(self.kinds)} of them, and {len(self.tokens)} tokens")

    def listed(self, name: str, kind: type) -> list[Any]:
        found = self.all.get(name, [])
        if not isinstance(found, list) or not all(isinstance(one, kind) for one in found):
            raise ModelError(f"{PREFIX}{name}: no list of {kind.__name__}")
        return found

    def id_of(self, name: str) -> int | None:
        """The id of a special token, by the name it has in the file."""
        found = self.all.get(f"{name}_token_id")
        return found if isinstance(found, int) and 0 <= found < len(self.tokens) else None

    def role(self, name: str) -> str | None:
        i = self.id_of(name)
        return None if i is None else self.tokens[i]

    @property
    def pre(self) -> str:
        return str(self.all.get("pre", "default"))

    @property
    def begins(self) -> bool:
        """Whether a text begins with the token for that."""
        usual = self.kind == PIECES_KIND or self.pre in BEGUN
        return bool(self.all.get("add_bos_token", usual))


# ---- a file's -> files


def write_tokenizer_files(metadata: Mapping[str, Any], folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json, the chat template and generation_config.json into `folder`, as far
    as the file has them. ModelError says what cannot be read."""
    entries = Entries(metadata)
    if entries.kind in NONE_KINDS:
        return
    make = {BYTES_KIND: _byte_level, PIECES_KIND: _pieces}.get(entries.kind)
    if make is None:
        raise ModelError(f"{PREFIX}model: no component reads {entries.kind!r}", hint="known: gpt2, llama")
    if not entries.tokens:
        raise ModelError(f"{PREFIX}tokens: the vocabulary is empty")
    with told(f"{PREFIX}tokens: the vocabulary cannot be used"):
        made = make(entries)
        made.add_tokens(_added(entries))
        made.save(str(folder / "tokenizer.json"), pretty=False)
    roles = {role: token for name, role in ROLES.items() if (token := entries.role(name)) is not None}
    described = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "add_bos_token": entries.begins,
        "add_eos_token": bool(entries.all.get("add_eos_token", False)),
        **roles,
    }
    _dump(folder / "tokenizer_config.json", described)
    if isinstance(template := metadata.get(TEMPLATE), str):
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    ends = list(dict.fromkeys(i for name in ENDS if (i := entries.id_of(name)) is not None))
    ids = {
        "bos_token_id": entries.id_of("bos"),
        "eos_token_id": ends[0] if len(ends) == 1 else ends or None,
        "pad_token_id": entries.id_of("padding"),
    }
    _dump(folder / "generation_config.json", {role: i for role, i in ids.items() if i is not None})


def _dump(file: Path, data: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _added(entries: Entries) -> list[AddedToken]:
    """Control tokens, which are special, and those that a user defined, which are found in any text."""
    wanted = (TokenKind.CONTROL, TokenKind.USER_DEFINED, TokenKind.UNKNOWN)
    return [
        AddedToken(token, special=kind != TokenKind.USER_DEFINED, normalized=False)
        for token, kind in zip(entries.tokens, entries.kinds, strict=True)
        if kind in wanted and token
    ]


def _byte_level(entries: Entries) -> tokenizers.Tokenizer:
    rule = cutting(entries.pre)
    if rule is None:
        known = ", ".join(sorted(name for one in CUTTINGS for name in one.names))
        raise ModelError(f"{PREFIX}pre: no rule for cutting text is called {entries.pre!r}", note=f"known: {known}")
    padding = {PADDING.format(i) for i, kind in enumerate(entries.kinds) if kind == TokenKind.UNUSED}
    vocab = {token: i for i, token in enumerate(entries.tokens) if token not in padding}
    merges = [(a, b) for a, _, b in (merge.partition(" ") for merge in entries.listed("merges", str))]
    merges = [(a, b) for a, b in merges if a in vocab and b in vocab and a + b in vocab]  # others do nothing
    made = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=rule.ignore_merges))
    if rule.composes:
        made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizer(rule.patterns)
    made.decoder = decoders.ByteLevel()
    return made


def _pieces(entries: Entries) -> tokenizers.Tokenizer:
    scores = entries.listed("scores", float)
    if len(scores) != len(entries.tokens):
        raise ModelError(f"{PREFIX}scores: {len(scores)} of them, and {len(entries.tokens)} tokens")
    vocab = {token: i for i, token in enumerate(entries.tokens)}
    plain = {token: i for token, i in vocab.items() if entries.kinds[i] == TokenKind.NORMAL}
    merges = merges_of(plain, scores)
    made = tokenizers.Tokenizer(
        models.BPE(vocab=vocab, merges=merges, unk_token=entries.role("unknown"), fuse_unk=True, byte_fallback=True)
    )
    begin = [normalizers.Prepend(SPACE)] if entries.all.get("add_space_prefix", True) else []
    made.normalizer = normalizers.Sequence([*begin, normalizers.Replace(" ", SPACE)])
    parts = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)] if begin else parts)
    return made


def merges_of(pieces: Mapping[str, int], scores: Sequence[float]) -> list[tuple[str, str]]:
    """The merges that make SentencePiece's BPE of a vocabulary with scores: what gives a better piece goes first."""
    found = []
    for piece, i in pieces.items():
        for cut in range(1, len(piece)):
            first, second = piece[:cut], piece[cut:]
            if first in pieces and second in pieces:
                found.append((-scores[i], i, pieces[first], pieces[second], first, second))
    found.sort()
    return [(first, second) for *_, first, second in found]


# ---- a tokenizer's -> a file's


def tokenizer_entries(
    tokenizer: Tokenizer | None, size: int, ids: Mapping[str, Any], template: str | None
) -> dict[str, Any] | None:
    """The entries for a model with `size` ids, its generation config's `ids` and its chat template; None for a
    tokenizer that llama.cpp does not run."""
    vocabulary = None if tokenizer is None else tokenizer.vocabulary()
    if tokenizer is None or vocabulary is None or len(vocabulary.tokens) > size:
        return None
    entries: dict[str, Any] = {}
    if isinstance(vocabulary, ByteLevelBPE):
        pre = name_of(vocabulary.cut, vocabulary.ignore_merges, vocabulary.composes)
        if pre is None:
            return None
        # The package writes no empty list. This merge gives no token, so nothing comes of it.
        merges = [" ".join(merge) for merge in vocabulary.merges] or ["Ā Ā"]
        entries |= {"model": BYTES_KIND, "pre": pre, "merges": merges}
    padding = range(len(vocabulary.tokens), size)
    if isinstance(vocabulary, ScoredBPE):
        scores = [*vocabulary.scores, *(-1000.0 for _ in padding)]
        entries |= {"model": PIECES_KIND, "pre": "default", "scores": [np.float32(score) for score in scores]}
        entries["add_space_prefix"] = vocabulary.add_prefix
    entries["tokens"] = [*vocabulary.tokens, *(PADDING.format(i) for i in padding)]
    entries["token_type"] = [np.int32(kind) for kind in [*vocabulary.kinds, *(TokenKind.UNUSED for _ in padding)]]
    entries["add_bos_token"] = tokenizer.adds_bos
    told_ends = ids.get("eos_token_id")
    ends = told_ends if isinstance(told_ends, list) else [told_ends if told_ends is not None else tokenizer.eos_id]
    unknown = next((i for i, kind in enumerate(vocabulary.kinds) if kind == TokenKind.UNKNOWN), None)
    bos = ids.get("bos_token_id")
    roles = {
        "bos": tokenizer.bos_id if bos is None else bos,
        **dict(zip(ENDS, ends, strict=False)),
        "unknown": unknown,
        "padding": ids.get("pad_token_id"),
    }
    entries |= {f"{name}_token_id": np.uint32(i) for name, i in roles.items() if i is not None and 0 <= i < size}
    beside = {f"{PREFIX}{name}": value for name, value in entries.items()}
    return beside if template is None else {**beside, TEMPLATE: template}
