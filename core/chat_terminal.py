"""A chat as a person types it, or a script pipes it: lines are messages, lines that begin with / are commands."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from lamina.core.chat import Chat
from lamina.core.errors import DataError, GenerationError, LaminaError, did_you_mean

HELP = """\
/system TEXT   set the system message; without a TEXT take it away
/reset         forget the messages but not the system message
/save FILE     write the messages as JSON lines
/help          this
/exit          end, as Ctrl-D does
Ctrl-C stops an answer. A message that begins with / is written with //."""
COMMANDS = ("/system", "/reset", "/save", "/help", "/exit")
# What would move the cursor or change the terminal is shown by its number: a model may say anything.
CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"}
NOTES = {
    "length": "(cut at {n} tokens: --max-new-tokens allows more)",
    "context": "(cut where the context is full: /reset begins anew)",
    "interrupted": "(stopped)",
}


class Terminal:
    """Reads lines, writes answers. `patient`: a mistake or Ctrl-C is told and the chat goes on."""

    def __init__(
        self, chat: Chat, write: Callable[[str], object], note: Callable[[str], object], *, patient: bool
    ) -> None:
        self.chat, self.write, self.note, self.patient = chat, write, note, patient
        self._saved: set[Path] = set()

    def run(self, read: Callable[[], str]) -> None:
        """Until `read` raises EOFError, or /exit."""
        while True:
            try:
                line = read()
                if not self.take(line):
                    return
            except EOFError:
                if self.patient:
                    self.write("\n")
                return
            except LaminaError as error:
                if not self.patient:
                    raise
                self.note(str(error))
            except KeyboardInterrupt:
                if not self.patient:
                    raise
                self.note("\n(Ctrl-D or /exit ends the chat)")

    def take(self, line: str) -> bool:
        """Act on one line; False when it ends the chat."""
        text = line.strip()
        if text.startswith("//"):
            self.answer(text[1:])
        elif text.startswith("/"):
            return self.command(*text.partition(" ")[::2])
        elif text:
            self.answer(text)
        return True

    def answer(self, text: str) -> None:
        reply = self.chat.stream(text)
        try:
            for piece in reply:
                self.write(piece.translate(CONTROLS) if self.patient else piece)
        except KeyboardInterrupt:
            if not self.patient:
                raise
        finally:
            reply.end()
            self.write("\n")
        told = NOTES.get(reply.stop)
        if told is not None:
            self.note(told.format(n=len(reply.token_ids)))

    def command(self, name: str, rest: str) -> bool:
        rest = rest.strip()
        if name == "/exit":
            return False
        if name == "/help":
            self.note(HELP)
        elif name == "/reset":
            self.chat.reset()
            self.note("(a new conversation)")
        elif name == "/system":
            self.chat.system = rest or None
            self.note("(the system message is set)" if rest else "(no system message)")
        elif name == "/save":
            self.save(rest)
        else:
            hint = did_you_mean(name, COMMANDS) or "/help lists the commands"
            raise GenerationError(
                f"there is no command {name!r:.40}", hint=hint, note="a message that begins with / is written with //"
            )
        return True

    def save(self, name: str) -> None:
        if not name:
            raise GenerationError("/save needs a file", hint="/save chat.jsonl")
        path = Path(name)
        if path.exists() and path not in self._saved:
            raise GenerationError(f"'{path}' exists already", hint="choose another file, or remove it first")
        self.chat.save(path)
        self._saved.add(path)
        self.note(f"(saved in {path})")


def typed_lines() -> Callable[[], str]:
    """Lines typed at a prompt, edited and recalled where the system can."""
    with suppress(ImportError):
        import readline  # noqa: F401  # not on every system; importing it is enough
    return lambda: input("> ")


def piped_lines() -> Callable[[], str]:
    lines: Iterator[bytes] = iter(sys.stdin.buffer)

    def read() -> str:
        for line in lines:
            return _text(line)
        raise EOFError

    return read


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"stdin is not UTF-8: {error}", hint="convert it first") from None


def read_messages(data: bytes) -> list[dict[str, Any]]:
    """What `--json` takes from stdin: a JSON list of messages, or else one message, its last line break left out."""
    text = _text(data)
    try:
        found = json.loads(text) if text.lstrip().startswith("[") else None
    except (ValueError, RecursionError):
        found = None  # a text that begins with a bracket
    if isinstance(found, list) and found and all(isinstance(message, dict) for message in found):
        return found
    if not text.strip():
        raise GenerationError("stdin holds no message", hint='echo "Hello" | lamina chat MODEL --json')
    return [{"role": "user", "content": text.removesuffix("\n").removesuffix("\r")}]
