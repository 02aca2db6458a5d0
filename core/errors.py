"""What lamina says when something a person gave it is wrong.

LaminaError             a user's mistake: what, where, how to mend; the command line exits with 2
 ├─ SpecError           every problem of one spec, each with its line
 ├─ PluginError         a plugin that cannot be used as it stands
 ├─ ModelError          a model or run directory that cannot be read or written
 ├─ DataError           a corpus or tokenizer file that cannot be used
 ├─ GenerationError     a request that the decoder cannot serve
 └─ RunFailure          the machine failed while working (disk full, …); the command line exits with 1
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

LONGEST_LINE = 120  # characters of a source line that a message shows


@dataclass(frozen=True)
class Location:
    """A place in a text a person wrote: file (or flag), line and column from 1, and the line itself."""

    file: str
    line: int = 0
    column: int = 0
    text: str = ""
    length: int = 1
    ours: bool = False  # lamina itself wrote it: a default, or a line of a shipped spec

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file

    def excerpt(self) -> tuple[str, int, int]:
        """The line, or of a long one what is around the place; how many characters stand before it; its length."""
        start, text = self.column - 1, self.text
        marked = max(1, min(self.length, len(text) - start))
        if len(text) <= LONGEST_LINE:
            return text, start, marked
        begin = max(0, min(start - LONGEST_LINE // 3, len(text) - LONGEST_LINE))
        end = min(len(text), begin + LONGEST_LINE)
        shown = ("…" if begin else "") + text[begin:end] + ("…" if end < len(text) else "")
        before = start - begin + bool(begin)
        return shown, before, min(marked, len(shown) - before)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: what, where, how to mend it."""

    message: str
    location: Location | None = None
    hint: str = ""
    note: str = ""

    def format(self) -> str:
        lines = [f"{self.location}: {self.message}" if self.location else self.message]
        place = self.location
        if place is not None and place.text.strip():
            number = f"{place.line:>3}"
            text, before, marked = place.excerpt()
            caret = " " * before + "^" * marked
            lines += [f"{number} | {text}", f"{' ' * len(number)} | {caret} {self.hint}".rstrip()]
        elif self.hint:
            lines.append(f"  {self.hint}")
        if self.note:
            lines.append(self.note)
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """For `--json`; file, line and column are null where no place is known."""
        place = self.location or Location("")
        found = {"file": place.file or None, "line": place.line or None, "column": place.column or None}
        return {"message": self.message, **found, "hint": self.hint, "note": self.note}


class LaminaError(Exception):
    """A user's mistake. `message` says what, `where` the place, `hint` how to mend it."""

    exit_code: ClassVar[int] = 2

    def __init__(self, message: str, *, where: Location | None = None, hint: str = "", note: str = "") -> None:
        self.problems: tuple[Problem, ...] = (Problem(message, where, hint, note),)
        super().__init__(self.problems[0].format())

    @property
    def message(self) -> str:
        return self.problems[0].message

    def rename(self, old: str, new: str) -> None:
        """Say `new` wherever it said `old`."""
        self.problems = tuple(replace(one, message=one.message.replace(old, new)) for one in self.problems)
        self.args = (str(self).replace(old, new),)


class SpecError(LaminaError):
    """Everything that is wrong with one spec."""

    def __init__(self, problems: str | Iterable[Problem], **place: object) -> None:
        if isinstance(problems, str):
            super().__init__(problems, **place)  # type: ignore[arg-type]
            return
        self.problems = _notes_once(problems)
        Exception.__init__(self, "\n\n".join(problem.format() for problem in self.problems))


def _notes_once(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """A note that several problems share stays with the first."""
    seen: set[str] = set()
    kept = []
    for problem in problems:
        kept.append(replace(problem, note="") if problem.note in seen else problem)
        seen.add(problem.note)
    return tuple(kept)


class PluginError(LaminaError):
    """A plugin that cannot be used as it stands."""


class ModelError(LaminaError):
    """A model or run directory that cannot be read or written."""


class DataError(LaminaError):
    """A corpus or tokenizer file that cannot be used."""


class GenerationError(LaminaError):
    """A request that the decoder cannot serve."""


class RunFailure(LaminaError):
    """The machine failed while lamina worked: a full disk, a lost device."""

    exit_code = 1


class ConfigProblem(ValueError):
    """Raised by a Config about one of its own fields; the reader adds the place in the YAML."""

    def __init__(self, field: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.field, self.message, self.hint = field, message, hint


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """ "did you mean 'gqa'?" when something close is known, else ""."""
    close = difflib.get_close_matches(str(word).lower(), [name.lower() for name in known], n=1, cutoff=0.6)
    match = next((name for name in known if close and name.lower() == close[0]), None)
    return f"did you mean '{match}'?" if match else ""
