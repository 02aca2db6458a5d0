"""Special tokens named beside a vocabulary, in tokenizer_config.json and special_tokens_map.json. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken

from lamina.core.errors import DataError
from lamina.core.library_tokenizer import add_special, special_of
from lamina.core.tokenizer import BEGINS, ENDS, Tokenizer, usual

CONFIG, MAP = "tokenizer_config.json", "special_tokens_map.json"
ROLES = ("bos_token", "eos_token", "unk_token", "pad_token", "cls_token", "sep_token", "mask_token")
LISTS = ("additional_special_tokens", "extra_special_tokens")


@dataclass
class SpecialFiles:
    """What the files in `folder` say, the first to mention a role being right."""

    folder: Path
    roles: dict[str, str | None] = field(default_factory=dict)  # bos_token, eos_token, … -> text, None for "none"
    names: list[str] = field(default_factory=list)  # all special tokens named
    added: dict[int, dict[str, Any]] = field(default_factory=dict)  # id -> token added to the vocabulary
    adds_bos: bool | None = None  # whether bos_token is put before texts, None where the files do not say

    @classmethod
    def read(cls, folder: Path) -> SpecialFiles:
        """DataError names a file that cannot be read or says something else than it should."""
        found = cls(folder)
        for name in (CONFIG, MAP):
            path = folder / name
            if path.exists():
                try:
                    found._take(Tokenizer.read_json(path))
                except (TypeError, ValueError, KeyError, AttributeError) as error:
                    raise DataError(f"'{path}' does not name special tokens as it should: {error!r}") from None
        return found

    def _take(self, data: Mapping[str, Any]) -> None:
        for role in ROLES:
            if role in data and role not in self.roles:
                self.roles[role] = _content(data[role])
        if self.adds_bos is None and isinstance(data.get("add_bos_token"), bool):
            self.adds_bos = data["add_bos_token"]
        self.names += [name for name in self.roles.values() if name and name not in self.names]
        for key in LISTS:
            listed = data.get(key) or []
            for token in listed.values() if isinstance(listed, dict) else listed:
                if (name := _content(token)) and name not in self.names:
                    self.names.append(name)
        for key, token in (data.get("added_tokens_decoder") or {}).items():
            self.added[int(key)] = {"content": str(_content(token)), **{k: bool(token.get(k)) for k in FLAGS}}

    def apply(self, tokenizer: tokenizers.Tokenizer) -> None:
        """Add the tokens that are given an id, and make those special that are said to be."""
        present = tokenizer.get_added_tokens_decoder()
        for i, token in sorted(self.added.items()):
            old = present.get(i)
            if old is not None and old.content == token["content"] and old.special == token["special"]:
                continue
            (tokenizer.add_special_tokens if token["special"] else tokenizer.add_tokens)([AddedToken(**token)])
            if (now := tokenizer.token_to_id(token["content"])) != i:
                raise DataError(
                    f"'{self.folder / CONFIG}' gives {token['content']!r} id {i}; the vocabulary has it at {now}"
                )
        add_special(tokenizer, self.names)

    def begin_and_end(self, tokenizer: tokenizers.Tokenizer) -> Iterator[int | None]:
        """The ids that begin and end a document: what the files say, or else the first of the usual names."""
        known = special_of(tokenizer)
        for role, names in (("bos_token", BEGINS), ("eos_token", ENDS)):
            yield usual([self.roles[role] or ""] if role in self.roles else names, known)


FLAGS = ("lstrip", "normalized", "rstrip", "single_word", "special")


def _content(token: Any) -> str | None:
    """A token as these files have it: its text, or an object with "content"."""
    if isinstance(token, dict):
        token = token["content"]
    if token is not None and not isinstance(token, str):
        raise TypeError(f"{token!r} is no token")
    return token
