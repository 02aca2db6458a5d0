"""A report as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from lamina.core.report import Memory, Report
from lamina.core.units import count, size


def tables(report: Report) -> Iterator[RenderableType]:
    """What to print, from top to bottom."""
    active = "" if report.active == report.total else f", {_count(report.active)} active for a token"
    yield f"[bold]{escape(report.name)}[/]: {report.n_layers} layers, {count(report.total)} parameters{active}"
    at = f"{report.batch} x {report.context:,} tokens"
    for title, table in (
        ("layers", _layers(report)),
        ("parameters", _parameters(report)),
        (f"one token at a context of {report.context:,}", _costs(report)),
        (f"memory for inference, {report.dtype}, {at}", _memory(report.inference)),
        (f"memory for training, float32, {at}", _memory(report.training)),
    ):
        yield f"\n[bold]{title}[/]"
        yield table
    for note in report.notes:
        yield f"note: {escape(note)}"


def _table(n_columns: int) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 0, 0, 2))
    for index in range(n_columns):
        table.add_column(justify="right" if index == 1 else "left")
    return table


def _layers(report: Report) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 0, 0, 2))
    for group in report.layers:
        each = " each" if len(group.layers) > 1 else ""
        what = f"{escape(group.block)}, {count(group.parameters)} parameters{each}"
        table.add_row(group.ranges, f"{what}\n{escape(group.parts)}")
    return table


def _parameters(report: Report) -> Table:
    table = _table(3)
    tied = "its weights tied to the embedding's" if report.tied else ""
    for kind, number in report.parameters.items():
        share = f"{number / max(1, report.total):.1%}"
        table.add_row(kind, f"{number:,}", f"{share}, {tied}" if tied and kind == "head" else share)
    if tied and "head" not in report.parameters:
        table.add_row("head", "0", "tied to the embedding")
    table.add_row("total", f"{report.total:,}", "")
    if report.active != report.total:
        table.add_row("active", "unknown" if report.active is None else f"{report.active:,}", "for one token")
    return table


def _costs(report: Report) -> Table:
    table = _table(2)
    table.add_row("FLOPs forward", _count(report.flops_forward))
    table.add_row("FLOPs in training", _count(report.flops_training))
    cache = report.cache
    table.add_row("cache", "unknown" if cache is None else size(cache.per_token))
    if cache is not None and cache.per_token_at_context != cache.per_token:
        table.add_row("cache, at the context's end", size(cache.per_token_at_context))
    return table


def _memory(memory: Memory) -> Table:
    table = _table(2)
    for use, n_bytes in [*memory.uses.items(), ("total", memory.total)]:
        table.add_row(use, "unknown" if n_bytes is None else size(n_bytes))
    return table


def _count(number: int | None) -> str:
    return "unknown" if number is None else count(number)
