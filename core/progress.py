"""What a person sees of long work, on stderr: a bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType, MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lamina.core.train import Progress

SECONDS_BETWEEN_LINES = 5.0


def note(text: str) -> None:
    """One line of what is going on."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def training_progress() -> Iterator[Callable[[Progress], None]]:
    """Gives a function to call after every step."""
    if sys.stderr.isatty():
        with _bar() as report:
            yield report
    else:
        yield _Lines()


def _figures(progress: Progress, latest: _Latest) -> str:
    losses = {"loss": latest.loss, "val": latest.val_loss, **latest.figures}
    shown = [f"{name.replace('_', ' ')} {value:.3f}" for name, value in losses.items() if value is not None]
    return " · ".join([*shown, f"{progress.tokens_per_second:,.0f} tokens/s"])


class _Latest:
    """The last loss, validation loss and figures of the parts heard of."""

    loss: float | None = None
    val_loss: float | None = None
    figures: Mapping[str, float] = MappingProxyType({})

    def hear(self, progress: Progress) -> None:
        self.loss = progress.loss if progress.loss is not None else self.loss
        self.val_loss = progress.val_loss if progress.val_loss is not None else self.val_loss
        self.figures = progress.figures or self.figures


@contextmanager
def _bar() -> Iterator[Callable[[Progress], None]]:
    from rich import progress as rich_progress
    from rich.console import Console

    columns = (
        rich_progress.TextColumn("step {task.completed}/{task.total}"),
        rich_progress.BarColumn(),
        rich_progress.TextColumn("{task.fields[figures]}"),
        rich_progress.TimeRemainingColumn(compact=True),
        rich_progress.TextColumn("left"),
    )
    latest = _Latest()
    with rich_progress.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("train", total=None, figures="")

        def report(progress: Progress) -> None:
            latest.hear(progress)
            figures = _figures(progress, latest)
            bar.update(task, total=progress.steps, completed=progress.step, figures=figures)

        yield report


class _Lines:
    def __init__(self) -> None:
        self.latest, self.started, self.first = _Latest(), time.monotonic(), 0
        self.printed = self.started

    def __call__(self, progress: Progress) -> None:
        self.latest.hear(progress)
        now = time.monotonic()
        self.first = self.first or progress.step
        if now - self.printed < SECONDS_BETWEEN_LINES and progress.step != progress.steps and progress.val_loss is None:
            return
        self.printed = now
        done = progress.step - self.first + 1
        left = (now - self.started) / done * (progress.steps - progress.step)
        figures = _figures(progress, self.latest)
        note(f"step {progress.step}/{progress.steps} · {figures} · {left:.0f} s left")


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Ctrl-C (or a SIGTERM) asks for an end, which the caller looks for between steps; a second one breaks in."""
    asked = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        note("\nstopping after this step; press Ctrl-C again to stop at once")

    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's alone
        yield asked.is_set
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
