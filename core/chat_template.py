"""Chat templates: messages to the text, and to the ids, that a model was trained to see. Imports no torch.

A template is Jinja text. It comes with a model, so it is a stranger's program: it is rendered by `template_sandbox`,
in a process that is ended when it takes too long or too much.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from lamina.core.errors import GenerationError, Location, ModelError
from lamina.core.tokenizer import Tokenizer

PLACE = Path("tokenizer") / "chat_template.jinja"  # in a model directory
JSON_PLACES = (PLACE.with_suffix(".json"), PLACE.with_name("tokenizer_config.json"))  # where others keep one
END_PLACES = (Path("generation_config.json"), PLACE.with_name("generation_config.json"))  # eos_token_id: id or list
LARGEST_TEMPLATE = 1 << 20  # bytes; the longest in use have some 20,000
LONGEST_TEXT = 10_000_000  # characters a template may make of messages
SECONDS, MEMORY = 1.0, 512 << 20  # of the processor, and bytes
PATIENCE = 10.0  # seconds by the clock, on a machine that is busy with other things
STRUCTURE = ("role", "type")  # keys of messages whose values are no text that anybody writes
PRIVATE_USE = range(0xF0000, 0x10FFFE)

Message = Mapping[str, Any]


@dataclass(frozen=True)
class ChatTemplate:
    """Jinja text that lays out messages; `name` says in errors where it is from."""

    text: str
    name: str = "chat template"

    @classmethod
    def read(cls, path: Path) -> ChatTemplate:
        """The template in a file. ModelError names a file that is none."""
        try:
            with open(path, "rb") as file:
                data = file.read(LARGEST_TEMPLATE + 1)
            if len(data) > LARGEST_TEMPLATE:
                raise ModelError(f"'{path}' is larger than {LARGEST_TEMPLATE:,} bytes; no chat template is")
            return cls(data.decode("utf-8"), str(path))
        except OSError as error:
            raise ModelError(f"chat template '{path}' cannot be read: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise ModelError(f"chat template '{path}' is not UTF-8: {error}") from None

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = False, **variables: Any) -> str:
        """The text of `messages`. `variables` are what else the template may read: bos_token, tools, …"""
        given = _variables(messages, add_generation_prompt, variables)
        return self._text(self._render([given])[0])

    def encode(
        self,
        tokenizer: Tokenizer,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = False,
        **variables: Any,
    ) -> list[int]:
        """The ids of `messages`. Special tokens the template writes are special; in a message they are plain text.

        To tell the two apart the template is rendered again with the characters of the messages replaced by
        private-use ones: first all but white space, then those that special tokens have besides letters, then only
        those in whole special tokens. The first of these that gives the same text, replaced back, is right about every
        character: what is a special token in it has none from a message. Where the template decides by the characters
        themselves none may be right, and the last is taken. It relies on the template for one thing, that it does not
        build a special token out of parts of messages that are none.
        Where no message has a special token, the ids are those of the whole text.
        """
        special = tokenizer.special_ids
        plain = _variables(messages, add_generation_prompt, variables)
        twins = _Twins.of(plain, self.text, special)
        try:
            disguised = [change(plain) for change in twins.levels()] if special else []
        except RecursionError:
            raise GenerationError("the messages are nested too deeply") from None
        first, *others = self._render([plain, *disguised])
        text = marked = self._text(first)
        agreeing = (one["text"] for one in others if "text" in one and twins.undo(one["text"]) == text)
        if others:
            marked = next(agreeing, None) or self._text(others[-1])
        pieces = tokenizer.split_special(marked, special)
        whole = twins.undo(marked)
        if tokenizer.split_special(whole, special) == [twins.undo(piece) for piece in pieces]:
            ids = tokenizer.encode(whole, allow_special=True)
            known = frozenset(special.values())
            # Some vocabularies find special tokens in another spelling, with other spaces or in capitals.
            if [i for i in ids if i in known] == [special[piece] for piece in pieces if piece in special]:
                return ids
        found_ids: list[int] = []
        for piece in pieces:
            found_ids += [special[piece]] if piece in special else tokenizer.encode(twins.undo(piece))
        return found_ids

    def end_of_turn(self, tokenizer: Tokenizer, **variables: Any) -> int | None:
        """The special token that the template itself writes right after an assistant's message."""
        said = "an answer to this"
        messages = [{"role": "user", "content": "a question"}, {"role": "assistant", "content": said}]
        found = self._render([_variables(messages, False, variables)])[0]
        if found.get("kind") == "TemplateSyntaxError":
            self._text(found)
        before, _, after = found.get("text", "").partition(said)
        special = tokenizer.special_ids
        pieces = tokenizer.split_special(after.lstrip(), special)
        return special.get(pieces[0]) if before and pieces else None

    def _render(self, renderings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        request = {
            "template": self.text,
            "now": datetime.now().isoformat(),  # one instant for all renderings
            "renderings": renderings,
            "longest": LONGEST_TEXT,
            "seconds": SECONDS,
            "bytes": MEMORY,
        }
        try:
            data = json.dumps(request)
        except (TypeError, ValueError, RecursionError) as error:
            raise GenerationError(f"messages must be made of JSON's values: {error}") from None
        try:
            done = subprocess.run(_command(), input=data.encode(), capture_output=True, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            raise self._too_slow() from None
        if hasattr(signal, "SIGPROF") and done.returncode == -signal.SIGPROF:
            raise self._too_slow()
        try:
            found: list[dict[str, Any]] = json.loads(done.stdout)
            return found
        except ValueError:
            pass
        if done.returncode == 1 and b"ModuleNotFoundError" in done.stderr:
            raise RuntimeError(done.stderr.decode(errors="replace"))
        raise ModelError(f"{self.name}: rendering it failed; it may need more than {MEMORY >> 20} MiB") from None

    def _too_slow(self) -> ModelError:
        return ModelError(
            f"{self.name}: it takes longer than {SECONDS:g} s to render",
            hint="does it loop for ever, or over too much?",
        )

    def _text(self, found: Mapping[str, Any]) -> str:
        """What a rendering gave, or its failure raised."""
        if "text" in found:
            return str(found["text"])
        kind, line = found["kind"], found["line"] or 0
        lines = self.text.splitlines()
        shown = lines[line - 1] if 0 < line <= len(lines) else ""
        where = Location(
            self.name, line, len(shown) - len(shown.lstrip()) + 1 if line else 0, shown, len(shown.strip())
        )
        if kind == "Refused":
            raise GenerationError(f"the chat template refuses these messages: {found['message']}", where=where)
        what, hint = {
            "TemplateSyntaxError": ("is not Jinja", ""),
            "SecurityError": ("reaches for what a template may not", "was it made for chats?"),
            "MemoryError": (f"needs more than {MEMORY >> 20} MiB", "does it loop over too much?"),
            "OverflowError": ("counts too far", "does it loop over too much?"),
            "TooLong": ("makes too much of these messages", "does it loop over too much?"),
            "RecursionError": ("calls itself without end, or is nested too deeply", ""),
        }.get(kind, (f"fails ({kind})", "was it made for such messages?"))
        why = f": {found['message']}" if found["message"] else ""
        raise ModelError(f"the chat template {what}{why}", where=where, hint=hint)


def stored_template(folder: Path) -> ChatTemplate | None:
    """The template in the model directory `folder`: a file of its own, or what a JSON file calls chat_template, one or
    several by name."""
    if (folder / PLACE).is_file():
        return ChatTemplate.read(folder / PLACE)
    for path in (folder / place for place in JSON_PLACES):
        told = Tokenizer.read_json(path).get("chat_template") if path.is_file() else None
        if isinstance(told, list):
            named = [one for one in told if isinstance(one, dict)]
            told = next((one.get("template") for one in named if one.get("name") == "default"), None)
        if isinstance(told, str):
            if len(told) > LARGEST_TEMPLATE:
                raise ModelError(f"the chat template in '{path}' is longer than {LARGEST_TEMPLATE:,}; no template is")
            return ChatTemplate(told, str(path))
    return None


def keep_template(source: Path, folder: Path) -> None:
    """Give a model directory that is being written what chats need of the model or run it was made from, if any."""
    if not any((source / name).is_file() for name in ("lamina.json", "train.json")):
        return
    template = stored_template(source)
    if template is not None and not (folder / PLACE).exists():
        (folder / PLACE).parent.mkdir(exist_ok=True)
        (folder / PLACE).write_text(template.text, encoding="utf-8")
    for place in END_PLACES:
        if (source / place).is_file() and not (folder / place).exists():
            (folder / place).parent.mkdir(exist_ok=True)
            shutil.copyfile(source / place, folder / place)


def find_template(folder: Path) -> ChatTemplate:
    """The template in the model directory `folder`; ModelError says what to do when there is none."""
    template = stored_template(folder)
    if template is not None:
        return template
    raise ModelError(
        f"the model has no chat template ('{folder / PLACE}' is not there)",
        hint="give one with --template FILE (template= in Python), or let the model go on with a text: lamina generate",
    )


def _variables(messages: Sequence[Message], add_generation_prompt: bool, more: Mapping[str, Any]) -> dict[str, Any]:
    given = {"tools": None, "documents": None, **more}
    return {"messages": list(messages), "add_generation_prompt": add_generation_prompt, **given}


def _command() -> list[str]:
    """A bare interpreter, cut off from the environment and from site packages but for those that are needed."""
    found = [importlib.util.find_spec(name) for name in ("jinja2", "markupsafe")]
    homes = [str(Path(spec.origin).parents[1]) for spec in found if spec is not None and spec.origin is not None]
    script = str(Path(__file__).with_name("template_sandbox.py"))
    start = "import runpy, sys; sys.path += sys.argv[2:]; runpy.run_path(sys.argv[1], run_name='__main__')"
    return [sys.executable, "-I", "-S", "-B", "-c", start, script, *dict.fromkeys(homes)]


class _Twins:
    """Characters of messages, each with a private-use one to stand in for it that occurs nowhere else."""

    def __init__(self, twin: Mapping[int, int], special: Iterable[str]) -> None:
        self._twin = twin
        self._back = {b: a for a, b in twin.items()}
        names = sorted(special, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, names)))
        self._signs = {
            ord(c): twin[ord(c)]
            for name in names
            for c in ([c for c in name if not c.isalnum() and not c.isspace()] or name[:1])
            if ord(c) in twin
        }
        # White space stays: templates strip it. But a special token may be made of nothing else.
        self._all = {c: t for c, t in twin.items() if c in self._signs or not chr(c).isspace()}

    @classmethod
    def of(cls, given: Mapping[str, Any], template: str, special: Iterable[str]) -> _Twins:
        written = {c for text in _texts(given) for c in text}
        taken = written.union(template, *special)
        free = (code for code in PRIVATE_USE if chr(code) not in taken)
        twin = {ord(c): code for c, code in zip(sorted(written), free, strict=False)}
        if len(twin) < len(written):
            raise GenerationError("the messages have too many different private-use characters")
        return cls(twin, special)

    def levels(self) -> list[Callable[[Any], Any]]:
        """Ways to replace characters of messages: most of them, some, few."""
        changes: list[Callable[[str], str]] = [
            lambda text: text.translate(self._all),
            lambda text: text.translate(self._signs),
            lambda text: self._special.sub(lambda found: found[0].translate(self._twin), text),
        ]
        return [lambda given, change=change: _changed(given, change) for change in changes]  # type: ignore[misc]

    def undo(self, text: str) -> str:
        return text.translate(self._back)


FROM_PEOPLE = ("messages", "tools", "documents")


def _texts(given: Mapping[str, Any]) -> Iterator[str]:
    """Every text among messages and the like."""
    waiting = [given[key] for key in FROM_PEOPLE]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            waiting += [inner for key, inner in value.items() if key not in STRUCTURE]
        elif isinstance(value, list | tuple):
            waiting += value


def _changed(given: Mapping[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    def inside(value: Any) -> Any:
        if isinstance(value, str):
            return change(value)
        if isinstance(value, Mapping):
            return {key: inner if key in STRUCTURE else inside(inner) for key, inner in value.items()}
        return [inside(inner) for inner in value] if isinstance(value, list | tuple) else value

    return {key: inside(value) if key in FROM_PEOPLE else value for key, value in given.items()}
