"""A constraint: only tokens by which the new text can still come to match a regular expression, JSON schema or grammar.

Through the `llguidance` library; Koo et al. 2024, arXiv:2407.08103, derive such masks from automata.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from pydantic import Field
from torch import Tensor

from lamina.core import (
    ComponentConfig,
    ConfigProblem,
    DataError,
    GenerationError,
    History,
    Register,
    Sampler,
    Tokenizer,
    hookimpl,
    load_extra,
)

FORMS = ("regex", "json_schema", "grammar")
COMPLETE = ("NoExtension", "NoExtensionBias", "EndOfSentence")  # why a matcher stops when its text is whole


class ConstraintConfig(ComponentConfig):
    regex: str | None = Field(None, description="A regular expression that the whole new text matches.")
    json_schema: dict[str, Any] | str | None = Field(
        None,
        description="A JSON schema, as a mapping or as JSON text, that the new text is a value of; a key `x-guidance` "
        "in it takes llguidance's own options.",
    )
    grammar: str | None = Field(None, description="A context-free grammar in llguidance's form of Lark.")

    def derive(self) -> dict[str, object]:
        given = [form for form in FORMS if getattr(self, form) is not None]
        if len(given) != 1:
            message = f"one of {', '.join(FORMS)} is needed" + (f", not {' and '.join(given)}" if given else "")
            raise ConfigProblem(given[-1] if given else "regex", message, "two constraints are two stages")
        return {}


class Constraint(Sampler):
    """Hold the new text to a form. It may end where the form is complete, and does where nothing can follow.

    It belongs first in the chain: a stage before it might remove every token it allows, which is an error.
    """

    Config = ConstraintConfig
    paper = "llguidance; Koo et al. 2024, arXiv:2407.08103"
    only_removes = True

    @classmethod
    def examples(cls, directory: Path) -> list[dict[str, Any]]:
        return [{"regex": "[a-z .]*"}, {"grammar": "start: /[a-z .]*/"}]

    def __init__(self, config: ConstraintConfig, tokenizer: Tokenizer | None, stop_ids: Collection[int]) -> None:
        if tokenizer is None:
            raise GenerationError("sampler 'constraint': a model without a tokenizer has no text to constrain")
        library = load_extra("llguidance", "'lamina[constraints]'", "sampler 'constraint'")
        form = next(form for form in FORMS if getattr(config, form) is not None)
        self.first = _matcher(library, form, getattr(config, form), _vocabulary(library, tokenizer, stop_ids))
        self.n_known = tokenizer.vocab_size
        self.matchers: list[Any] = []  # one a row, made when the number of rows is known
        self.n_read = 0  # generated tokens the matchers have read

    def forward(self, logits: Tensor, history: History) -> Tensor:
        self._read(history)
        n_known = min(self.n_known, logits.shape[1])
        masks = [_bits(matcher.compute_bitmask(), n_known, logits.shape[1]) for matcher in self.matchers]
        allowed = torch.stack(masks).to(logits.device)  # (B, V)
        out = logits.masked_fill(~allowed, -torch.inf)
        if not bool(allowed.any(-1).all()) or any(matcher.is_error() for matcher in self.matchers):
            raise _stuck()
        if not bool((out > -torch.inf).any(-1).all()):
            message = "sampler 'constraint': stages before it have removed every token it allows"
            raise GenerationError(message, hint="put it first in the chain")
        return out

    def ended(self, history: History) -> Tensor:
        self._read(history)
        complete = [matcher.is_stopped() and matcher.stop_reason() in COMPLETE for matcher in self.matchers]
        return torch.tensor(complete, device=history.token_ids.device)

    def reorder(self, rows: Tensor) -> None:
        if self.matchers:
            self.matchers = [self.matchers[row].deep_copy() for row in rows.tolist()]

    def __deepcopy__(self, memo: dict[int, Any]) -> Constraint:
        twin = copy.copy(self)
        twin.matchers = [matcher.deep_copy() for matcher in self.matchers]
        return twin

    def _read(self, history: History) -> None:
        """Bring the matchers up to the history's last token."""
        rows = history.token_ids.shape[0]
        self.matchers = self.matchers or [self.first.deep_copy() for _ in range(rows)]
        new = history.n_generated - self.n_read
        if new:
            for matcher, tokens in zip(self.matchers, history.token_ids[:, -new:].tolist(), strict=True):
                if not matcher.consume_tokens(tokens):
                    raise _stuck()
        self.n_read = history.n_generated


def _stuck() -> GenerationError:
    return GenerationError(
        "sampler 'constraint': no token of the tokenizer goes on here",
        hint="the form asks for a text that the tokenizer cannot spell, or is too complex",
    )


class _Tokens:
    """A vocabulary as the library wants it told."""

    def __init__(self, tokenizer: Tokenizer, ends: Sequence[int]) -> None:
        self.tokenizer = tokenizer
        names = {token: name.encode() for name, token in tokenizer.special_ids.items()}
        pieces = tokenizer.token_bytes(range(tokenizer.vocab_size))
        self.tokens = [names.get(token, piece or b"") for token, piece in enumerate(pieces)]
        self.special_token_ids = sorted(names)
        self.bos_token_id = None
        # The library counts on an end of text and on every byte. Those that the tokenizer lacks stand behind all ids
        # there are, and no mask shows them.
        self.ids = {piece: token for token, piece in enumerate(pieces) if piece}
        for byte in range(256):
            if bytes((byte,)) not in self.ids:
                self.ids[bytes((byte,))] = len(self.tokens)
                self.tokens.append(bytes((byte,)))
        self.longest = max(map(len, self.ids))
        self.eos_token_id = ends[0] if ends else len(self.tokens)
        if not ends:
            self.tokens.append(b"<|end|>")
            self.special_token_ids.append(self.eos_token_id)

    def __call__(self, text: bytes) -> list[int]:
        """How a text that is certain to follow is cut into tokens."""
        try:
            ids = self.tokenizer.encode(text.decode())
        except (DataError, UnicodeDecodeError):
            ids = []
        if b"".join(self.tokens[token] for token in ids) == text:
            return ids
        # A tokenizer may read a text's beginning in another way than its middle.
        ids, at = [], 0
        while at < len(text):
            ends = range(min(len(text), at + self.longest), at, -1)
            end = next(end for end in ends if text[at:end] in self.ids)
            ids.append(self.ids[text[at:end]])
            at = end
        return ids


_VOCABULARIES: WeakKeyDictionary[Tokenizer, dict[tuple[int, ...], Any]] = WeakKeyDictionary()  # seconds of work each


def _vocabulary(library: Any, tokenizer: Tokenizer, stop_ids: Collection[int]) -> Any:
    special = set(tokenizer.special_ids.values())
    # A stop token that is a piece of text may come anywhere; those that mark an end come at the end.
    ends = tuple(sorted({*stop_ids, *(() if tokenizer.eos_id is None else (tokenizer.eos_id,))} & special))
    known = _VOCABULARIES.setdefault(tokenizer, {})
    if ends not in known:
        tokens = _Tokens(tokenizer, ends)
        known[ends] = library.LLTokenizer(
            library.TokenizerWrapper(tokens), eos_token=list(ends) or [tokens.eos_token_id], slices=[]
        )
    return known[ends]


def _matcher(library: Any, form: str, text: Any, vocabulary: Any) -> Any:
    maker = library.LLMatcher
    try:
        if form == "json_schema":
            schema = json.loads(text) if isinstance(text, str) else text
            if not isinstance(schema, dict):
                raise ValueError("a schema is a mapping")
            grammar = maker.grammar_from_json_schema(json.dumps(schema))
        else:
            grammar = maker.grammar_from_lark(text) if form == "grammar" else maker.grammar_from_regex(text)
    except ValueError as error:
        raise ConfigProblem(form, f"not a JSON schema: {error}") from None
    wrong, messages = maker.validate_grammar_with_warnings(grammar, vocabulary)
    matcher = maker(vocabulary, grammar, log_level=0)
    if wrong or matcher.is_error():
        why = messages[0] if messages else matcher.get_error()
        raise ConfigProblem(form, why.strip())
    return matcher


def _bits(mask: bytes, n_known: int, size: int) -> Tensor:
    """A bit a token, lowest first, of which the first `n_known` count -> (V,) bool."""
    packed = torch.frombuffer(bytearray(mask), dtype=torch.uint8)
    bits = (packed.unsqueeze(1) >> torch.arange(8, dtype=torch.uint8)) & 1
    found = torch.zeros(size, dtype=torch.bool)
    found[:n_known] = bits.flatten()[:n_known].bool()
    return found


@hookimpl
def register_components(register: Register) -> None:
    register("constraint", Constraint)
