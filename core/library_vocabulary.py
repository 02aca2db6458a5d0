"""What a vocabulary of the `tokenizers` library comes to, where others can run it too. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import tokenizers

from lamina.core.vocabulary import BYTE_OF, ByteLevelBPE, ScoredBPE, TokenKind, Vocabulary

SPACE = "▁"
COMPOSES = ({"type": "NFC"}, {"type": "Sequence", "normalizers": [{"type": "NFC"}]})
REPLACES = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
PREPENDS = {"type": "Prepend", "prepend": SPACE}


def vocabulary_of(tokenizer: tokenizers.Tokenizer) -> Vocabulary | None:
    """Byte-level BPE or SentencePiece's; None for any other, and where more is done to a text than these do."""
    state = json.loads(tokenizer.to_str())
    model = state["model"]
    if model.get("type") != "BPE" or model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        return None
    known = tokenizer.get_vocab(with_added_tokens=True)
    tokens, kinds = _listed(known, state["added_tokens"])
    merges = [halves(merge) for merge in model["merges"]]
    if _is_byte_level(state):
        cutting = tokenizer.pre_tokenizer

        def cut(text: str) -> list[str]:
            return [piece for piece, _ in cutting.pre_tokenize_str(text)]

        return ByteLevelBPE(
            tokens, kinds, merges, cut, bool(model.get("ignore_merges")), state["normalizer"] is not None
        )
    prefix = _space_prefix(state)
    if prefix is None or not model.get("byte_fallback"):
        return None
    if (unknown := model.get("unk_token")) in known:
        kinds[known[unknown]] = TokenKind.UNKNOWN
    for byte in range(256):
        if (i := known.get(f"<0x{byte:02X}>")) is not None:
            kinds[i] = TokenKind.BYTE
    return ScoredBPE(tokens, kinds, _scores(tokens, merges), prefix)


def halves(merge: str | list[str]) -> tuple[str, str]:
    """The two pieces of a merge, in either of the library's spellings."""
    a, b = merge.split(" ", 1) if isinstance(merge, str) else merge
    return a, b


def _listed(known: Mapping[str, int], added: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[TokenKind]]:
    """Tokens by id and what they are for; ids without a token are unused ones."""
    size = 1 + max(known.values())
    tokens, kinds = [f"[PAD{i}]" for i in range(size)], [TokenKind.UNUSED] * size
    for token, i in known.items():
        tokens[i], kinds[i] = token, TokenKind.NORMAL
    for one in added:
        kinds[one["id"]] = TokenKind.CONTROL if one["special"] else TokenKind.USER_DEFINED
    return tokens, kinds


def _is_byte_level(state: Mapping[str, Any]) -> bool:
    """Whether bytes are all it is about: every byte has a token and no text is changed, but for composing it."""
    cutting = json.dumps(state["pre_tokenizer"])
    return (
        (state["decoder"] or {}).get("type") == "ByteLevel"
        and '"ByteLevel"' in cutting
        and '"add_prefix_space": true' not in cutting
        and '"Removed"' not in cutting
        and state["normalizer"] in (None, *COMPOSES)
        and BYTE_OF.keys() <= state["model"]["vocab"].keys()
    )


def _space_prefix(state: Mapping[str, Any]) -> bool | None:
    """Whether a text gets a space before it, for a tokenizer that writes spaces as SentencePiece does; else None."""
    steps, cutting = state["normalizer"], state["pre_tokenizer"]
    steps = [] if steps is None else steps["normalizers"] if steps["type"] == "Sequence" else [steps]
    if cutting is None:
        return {1: False, 2: True}[len(steps)] if steps in ([REPLACES], [PREPENDS, REPLACES]) else None
    if cutting["type"] == "Metaspace" and not cutting.get("split", True) and not steps:
        return bool(cutting.get("prepend_scheme") != "never")
    # Gemma's cuts at spaces that are no longer there.
    return (
        False
        if cutting["type"] == "Split"
        and cutting["pattern"] == REPLACES["pattern"] == {"String": " "}
        and steps == [REPLACES]
        else None
    )


def _scores(tokens: Sequence[str], merges: Sequence[tuple[str, str]]) -> list[float]:
    """A score for each token, the better the earlier it is merged; tokens that nothing merges have the worst."""
    first: dict[str, int] = {}
    for a, b in merges:
        first.setdefault(a + b, len(first))
    return [float(-first.get(token, len(first))) for token in tokens]
