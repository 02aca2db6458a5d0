"""A trace as a table for people to read."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from lamina.core.trace import StageTrace

LEGEND = "each stage: probability removed / tokens left; ~ probability that lies on other tokens afterwards"


def trace_table(tokens: Sequence[str], traces: Sequence[Sequence[StageTrace]]) -> Table:
    """A line for each generated token, a column for each stage."""
    table = Table()
    table.add_column("token")
    names = max(([stage.stage for stage in stages] for stages in traces), key=len, default=[])
    for name in names:
        table.add_column(name, justify="right")
    for token, stages in zip(tokens, traces, strict=True):
        table.add_row(escape(_visible(token)), *map(_cell, stages))
    return table


def _cell(stage: StageTrace) -> str:
    moved = f" ~{stage.moved:.1%}" if stage.moved - stage.removed > 5e-4 else ""
    return f"{stage.removed:.1%} / {stage.n_left:,}{moved}"


def _visible(token: str) -> str:
    """The token between quotes, with its line ends and other characters that do not print written out."""
    return "'" + "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in token) + "'"
