"""Runs the checks of a distribution's components: as items for pytest, and one by one for the command line."""

from __future__ import annotations

import atexit
import shutil
import signal
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lamina.core.conformance.case import Case, cases_of
from lamina.core.conformance.checks import Check, NotApplicable, Wrong, checks_of
from lamina.core.conformance.target import find_target
from lamina.core.errors import GenerationError
from lamina.core.registry import Entry, Registry

PATIENCE = 120  # seconds for one check of one example


class Subject:
    """A component under test, with the examples to try it with; these are found on first use."""

    def __init__(self, entry: Entry, registry: Registry) -> None:
        self.entry, self.registry = entry, registry.ours  # whatever else is called gqa or rms

    @cached_property
    def cases(self) -> list[Case]:
        folder = tempfile.mkdtemp(prefix="lamina-check-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return cases_of(self.entry, self.registry, Path(folder))


@dataclass(frozen=True, eq=False)
class Item:
    """One check of one component. Calling it raises Wrong where the component does not keep to it."""

    subject: Subject
    check: Check

    def __str__(self) -> str:
        return f"{self.subject.entry.kind}/{self.subject.entry.name}: {self.check.name}"

    __repr__ = __str__

    def __call__(self, n_examples: int | None = None) -> None:
        """Try every example, or the first `n_examples`."""
        try:
            cases = self.subject.cases[:1] if self.check.once else self.subject.cases[:n_examples]
        except NotApplicable:
            return
        for case in cases:
            try:
                self.check.run(case)
            except NotApplicable:
                continue
            except GenerationError:
                if not case.varied:
                    raise
            except Wrong as error:
                raise Wrong(error.expected, error.found, **error.case, options=str(case)) from error


def checks_for(target: str | Path) -> list[Item]:
    """Every check of every component that a distribution offers, to parametrise a test with.

    `target` is an installed distribution's name or a folder with a pyproject.toml. PluginError: there is no such, or
    it does not load.
    """
    found = find_target(target)
    found.must_load()
    return items_of(found.entries, found.registry)


def items_of(entries: Iterable[Entry], registry: Registry) -> list[Item]:
    """The checks of these components of a registry."""
    subjects = [Subject(entry, registry) for entry in entries]
    return [Item(subject, check) for subject in subjects for check in checks_of(subject.entry.kind)]


@dataclass(frozen=True)
class Result:
    """How one check of one component went. `passed` is None where it says nothing about the component."""

    kind: str
    name: str
    check: str
    about: str
    passed: bool | None
    message: str
    example: str
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))


def run(items: Iterable[Item], n_examples: int | None = None) -> Iterator[Result]:
    """Run the checks one after the other; nothing that a component does stops the rest."""
    unusable: dict[Subject, tuple[bool | None, str]] = {}
    for item in items:
        subject = item.subject
        began = time.perf_counter()
        if subject not in unusable:
            try:
                with _guarded(PATIENCE):
                    _ = subject.cases
            except NotApplicable as error:
                unusable[subject] = (None, str(error))
            except Exception as error:
                unusable[subject] = (False, _say(error))
                yield _result(item, "examples", "There are options to check it with.", False, _say(error), "", began)
        if subject in unusable:
            passed, why = unusable[subject]
            if passed is None:
                yield _result(item, item.check.name, item.check.about, None, why, "", began)
            continue
        yield _run_one(item, n_examples, began)


def _run_one(item: Item, n_examples: int | None, began: float) -> Result:
    name, about = item.check.name, item.check.about
    cases = item.subject.cases[:1] if item.check.once else item.subject.cases[:n_examples]
    ran, why = False, ""
    for case in cases:
        try:
            with _guarded(PATIENCE):
                item.check.run(case)
            ran = True
        except NotApplicable as error:
            why = str(error)
        except Exception as error:
            if case.varied and isinstance(error, GenerationError):  # an option that sets a limit, and was set low
                continue
            return _result(item, name, about, False, _say(error), str(case), began)
    return _result(item, name, about, True if ran else None, "" if ran else why, "", began)


def _result(item: Item, name: str, about: str, passed: bool | None, message: str, case: str, began: float) -> Result:
    entry = item.subject.entry
    return Result(entry.kind, entry.name, name, about, passed, message, case, round(time.perf_counter() - began, 3))


def _say(error: Exception) -> str:
    if isinstance(error, Wrong):
        return str(error)
    last = [frame for frame in traceback.extract_tb(error.__traceback__)][-1:]
    place = f" ({Path(last[0].filename).name}:{last[0].lineno})" if last else ""
    said = str(error).strip().splitlines()
    return f"it raised {type(error).__name__}: {said[0] if said else ''}{place}"


@contextmanager
def _guarded(seconds: int) -> Iterator[None]:
    """Warnings are no failures here, and what does not end is one, where the platform can interrupt it."""
    can_interrupt = hasattr(signal, "SIGALRM") and threading.current_thread() is threading.main_thread()

    def stop(signum: int, frame: object) -> None:
        raise Wrong(f"an end within {seconds} seconds", "none")

    before = signal.signal(signal.SIGALRM, stop) if can_interrupt else None
    try:
        if can_interrupt:
            signal.alarm(seconds)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if can_interrupt:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
