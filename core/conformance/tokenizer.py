"""Tokenizers: text comes back, ids are in range, special tokens stay special, files open to the same."""

from __future__ import annotations

import itertools
import random
import tempfile
from pathlib import Path

from lamina.core.conformance.case import Case
from lamina.core.conformance.checks import Wrong, check
from lamina.core.errors import DataError
from lamina.core.tokenizer import Tokenizer

SAMPLE = (
    "The quick brown fox jumps over the lazy dog. 0123456789\n",
    "def f(x):\n\treturn [x ** 2 for _ in range(10)]  # code\n",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. naïve café\n",
    "a b  c   d    e\n\n\n  indented\ttab\r\nwindows\n",
) * 4
TEXTS = (
    "",
    "a",
    " ",
    "\n",
    "Hello",
    " two  spaces ",
    "line\nline\r\n\ttab",
    "café",
    "e\u0301 combining",
    "日本語",
    "🙂",
    "👩‍👩‍👧 family",
    "\x00 nul",
    "\ufeff mark",
    "\ufffd replacement",
    "mixed: ñ 漢字 🙂 end",
    "x" * 300,
    "\U0010ffff",
)


def _drawn(n: int) -> list[str]:
    """Short texts of any code points that are text, the same every time."""
    draw = random.Random(0)
    planes = [(0x20, 0xD7FF), (0xE000, 0xFFFF), (0x10000, 0x3FFFF), (0xE0000, 0x10FFFF)]
    return ["".join(chr(draw.randint(*draw.choice(planes))) for _ in range(draw.randint(1, 6))) for _ in range(n)]


ANY_TEXTS = _drawn(200)
SIZES = (400, 300, 600, 1000, 64, 2000)


def opened(case: Case) -> Tokenizer:
    """From its files, or trained on a little text to the first size it takes."""
    component = case.entry.component
    assert issubclass(component, Tokenizer)
    config = case.part.config
    if not component.untrained(config):
        return component.open(config, case.directory)
    reason: DataError | None = None
    for size in SIZES:
        try:
            made = component.train(config, iter(SAMPLE), size)
        except DataError as error:
            reason = reason or error
            continue
        if made.vocab_size > size:
            raise Wrong(f"at most the {size} ids that were asked for", f"{made.vocab_size}")
        return made
    raise Wrong(f"to be trained to one of {SIZES} ids", str(reason))


def encoded(tokenizer: Tokenizer, text: str) -> list[int] | None:
    """None for a text it refuses, as a tokenizer may whose vocabulary lacks a character."""
    try:
        return tokenizer.encode(text)
    except DataError:
        return None


@check("tokenizer", name="round trip")
def text_comes_back(case: Case) -> None:
    """decode(encode(text)) is the text; one it cannot hold raises DataError, unless `lossy` says that it is changed."""
    tokenizer = opened(case)
    for text in sorted((*TEXTS, *SAMPLE[:4], *ANY_TEXTS), key=len):
        ids = encoded(tokenizer, text)
        if ids is None:
            continue
        if not isinstance(ids, list) or not all(type(token) is int for token in ids):
            raise Wrong("encode to return a list of int", repr(ids)[:80], text=repr(text))
        if wrong := [token for token in ids if not 0 <= token < tokenizer.vocab_size]:
            raise Wrong(f"ids from 0 to {tokenizer.vocab_size - 1}", f"{wrong[0]}", text=repr(text))
        if not tokenizer.lossy and (back := tokenizer.decode(ids)) != text:
            raise Wrong(f"{text!r} to come back", f"{back!r}", ids=ids[:12])
    for text in SAMPLE[:4]:
        if case.entry.component.untrained(case.part.config) and encoded(tokenizer, text) is None:  # type: ignore[attr-defined]
            raise Wrong("the text it was trained on to be encoded", "it is refused", text=repr(text))
    try:
        tokenizer.encode("half \ud83d pair")
    except DataError:
        return
    if not tokenizer.lossy:
        raise Wrong("half a surrogate pair, which is no text, to be refused with DataError", "it was encoded")


@check("tokenizer", name="special tokens")
def special_tokens_are_special(case: Case) -> None:
    """What looks like a special token is text unless `allow_special`; decode leaves special tokens out on demand."""
    tokenizer = opened(case)
    special = tokenizer.special_ids
    for name, token in itertools.islice(special.items(), 8):
        if not 0 <= token < tokenizer.vocab_size:
            raise Wrong(f"special ids from 0 to {tokenizer.vocab_size - 1}", f"{token}", token=name)
        text = f"a{name}b"
        ids = encoded(tokenizer, text)
        if ids is not None and token in ids:
            raise Wrong("a special token's text to be text", "it was made the token", text=repr(text))
        if ids is not None and not tokenizer.lossy and tokenizer.decode(ids) != text:
            raise Wrong(f"{text!r} to come back", f"{tokenizer.decode(ids)!r}")
        if token not in (allowed := tokenizer.encode(text, allow_special=True)):
            raise Wrong("a special token's text to be the token with allow_special", f"{allowed}", text=repr(text))
        if name in tokenizer.decode([token]):
            raise Wrong("skip_special to leave special tokens out", f"{tokenizer.decode([token])!r}", token=name)
        if name not in (shown := tokenizer.decode([token], skip_special=False)):
            raise Wrong("special tokens to be shown when not skipped", f"{shown!r}", token=name)
    for what, found in (("bos_id", tokenizer.bos_id), ("eos_id", tokenizer.eos_id)):
        if found is not None and not 0 <= found < tokenizer.vocab_size:
            raise Wrong(f"{what} from 0 to {tokenizer.vocab_size - 1}, or None", f"{found}")


@check("tokenizer", name="save and open")
def it_opens_as_it_was_saved(case: Case) -> None:
    """What `save` writes opens, from another folder, to a tokenizer that does the same."""
    tokenizer = opened(case)
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        config = tokenizer.save(Path(first))
        if type(config) is not case.entry.component.Config:
            raise Wrong(f"save to return a {case.entry.component.Config.__name__}", type(config).__name__)
        again = type(tokenizer).open(config, Path(first))
        twice = type(tokenizer).open(again.save(Path(second)), Path(second))
        for other in (again, twice):
            for what in ("vocab_size", "special_ids", "bos_id", "eos_id", "lossy"):
                if getattr(other, what) != getattr(tokenizer, what):
                    raise Wrong(f"{what} {getattr(tokenizer, what)} again", f"{getattr(other, what)}")
            for text in (*TEXTS, *SAMPLE[:4]):
                if encoded(other, text) != encoded(tokenizer, text):
                    raise Wrong("the same ids after save and open", "others", text=repr(text))


@check("tokenizer", name="streaming")
def streaming_is_decoding(case: Case) -> None:
    """Ids decoded as they come give the text they give at once, and never half a character."""
    tokenizer = opened(case)
    for text in sorted((*TEXTS, *SAMPLE[:4], *ANY_TEXTS, "".join(SAMPLE)), key=len):
        ids = encoded(tokenizer, text)
        if ids is None:
            continue
        stream = tokenizer.stream()
        pieces = [stream.push(token) for token in ids]
        if "\ufffd" not in text and (half := [piece for piece in pieces if "\ufffd" in piece]) and not tokenizer.lossy:
            raise Wrong("no half character while streaming", f"{half[0]!r}", text=repr(text))
        if (got := "".join(pieces) + stream.finish()) != (want := tokenizer.decode(ids)):
            raise Wrong(f"{want!r} from the stream", f"{got!r}", ids=ids[:12])


@check("tokenizer", name="unknown ids")
def ids_without_a_token_are_no_text(case: Case) -> None:
    """Ids from vocab_size on, as a padded vocabulary has them, stand for no text; token_texts has one for each id."""
    tokenizer = opened(case)
    ids = tokenizer.encode("a b")
    text = tokenizer.decode(ids)
    beyond = tokenizer.vocab_size
    try:
        got = tokenizer.decode([*ids, beyond, beyond + 7])
    except (LookupError, ValueError, OverflowError) as error:
        raise Wrong(
            "ids without a token to stand for no text", f"{type(error).__name__}: {error}", id=beyond
        ) from error
    if got != text:
        raise Wrong("ids without a token to stand for no text", f"{got!r}", id=beyond)
    every = list(range(min(beyond, 300)))
    if len(texts := tokenizer.token_texts(every)) != len(every) or not all(isinstance(t, str) for t in texts):
        raise Wrong("a text for each id from token_texts", f"{len(texts)} for {len(every)}")


@check("tokenizer", name="repeatable")
def training_repeats(case: Case) -> None:
    """Trained on the same text, or opened from the same files, it gives the same ids."""
    one, other = opened(case), opened(case)
    for text in (*TEXTS, *SAMPLE[:4]):
        if encoded(one, text) != encoded(other, text):
            raise Wrong("the same ids from the same training text", "others", text=repr(text))
