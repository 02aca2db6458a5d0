"""What was measured, as data and as tables: see `profile` and `bench`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lamina.core.units import count, size

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

OTHER = "other"  # what no part does: the decoder's own loop, and torch between the parts


@dataclass(frozen=True)
class Bench:
    """The figures of one bench with the settings they were taken at."""

    figures: dict[str, float | int | None]
    settings: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**self.figures, **self.settings}

    def to_table(self) -> Table:
        from rich.table import Table  # not needed by who reads the figures from Python

        table = Table(title=str(self.settings["model"]), show_header=False)
        for name, value in self.figures.items():
            table.add_row(*_as_read(name, value))
        table.add_section()
        for name, value in self.settings.items():
            table.add_row(name.replace("_", " "), str(value))
        return table


@dataclass(frozen=True)
class Phase:
    """One phase of the work: how long it takes, for how much, and how that divides among the parts."""

    name: str  # prefill, decode (of one token in every row), forward, backward, update
    seconds: float
    tokens: int
    flops: int | None  # None when they cannot be counted
    shares: dict[str, float]  # by part, adding up to one; empty for the update, in which no part works

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds

    @property
    def flops_per_second(self) -> float | None:
        return None if self.flops is None else self.flops / self.seconds


@dataclass(frozen=True)
class Profile:
    """The figures of one decoder with the settings they were taken at."""

    phases: dict[str, Phase]
    time_to_first_token: float  # seconds
    weight_bytes: int  # read to decode one token in every row
    cache_bytes: int  # read besides
    peak_memory: dict[str, int | None]  # bytes after inference and after training
    matmul_peak: float | None  # FLOP/s of this machine at this dtype
    read_peak: float  # bytes a second
    rounds: dict[str, int]
    settings: dict[str, Any]

    @property
    def parts(self) -> list[str]:
        """Every part, the slowest of the first phase first, and at the end what no part does."""
        names = dict.fromkeys(name for phase in self.phases.values() for name in phase.shares if name != OTHER)
        first = next(iter(self.phases.values())).shares
        return [*sorted(names, key=lambda name: -first.get(name, 0.0)), OTHER]

    @property
    def train_tokens_per_second(self) -> float | None:
        steps = [phase for phase in self.phases.values() if phase.name in ("forward", "backward", "update")]
        return steps[0].tokens / sum(phase.seconds for phase in steps) if steps else None

    @property
    def decode_bytes_per_second(self) -> float:
        return (self.weight_bytes + self.cache_bytes) / self.phases["decode"].seconds

    def share_of_peak(self, phase: Phase) -> float | None:
        achieved = phase.flops_per_second
        return None if achieved is None or self.matmul_peak is None else achieved / self.matmul_peak

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "parts": [self._part(name) for name in self.parts],
            "phases": {
                phase.name: {
                    "seconds": phase.seconds,
                    "tokens": phase.tokens,
                    "tokens_per_second": phase.tokens_per_second,
                    "flops": phase.flops,
                    "flops_per_second": phase.flops_per_second,
                    "share_of_matmul_peak": self.share_of_peak(phase),
                }
                for phase in self.phases.values()
            },
            "time_to_first_token_s": self.time_to_first_token,
            "prefill_tokens_per_second": self.phases["prefill"].tokens_per_second,
            "decode_tokens_per_second": self.phases["decode"].tokens_per_second,
            "train_tokens_per_second": self.train_tokens_per_second,
            "decode_weight_bytes": self.weight_bytes,
            "decode_cache_bytes": self.cache_bytes,
            "decode_bytes_per_second": self.decode_bytes_per_second,
            "decode_share_of_read_peak": self.decode_bytes_per_second / self.read_peak,
            "matmul_peak_flops_per_second": self.matmul_peak,
            "read_peak_bytes_per_second": self.read_peak,
            "peak_rss_bytes": self.peak_memory,
            "rounds": self.rounds,
            "settings": self.settings,
        }

    def _part(self, name: str) -> dict[str, Any]:
        figures: dict[str, Any] = {"name": name}
        for phase in self.phases.values():
            if name in phase.shares:
                figures[phase.name] = {"share": phase.shares[name], "seconds": phase.shares[name] * phase.seconds}
        return figures

    def to_table(self) -> Group:
        from rich.console import Group  # not needed by who reads the figures from Python

        return Group(self._table_of_parts(), self._table_of_phases(), *self._notes())

    def _table_of_parts(self) -> Table:
        from rich.table import Table

        divided = [phase for phase in self.phases.values() if phase.shares]
        table = Table(title=f"{self.settings['model']}: share of the time")
        table.add_column("part")
        for phase in divided:
            table.add_column(phase.name, justify="right")
        for part in self.parts:
            table.add_row(part, *(f"{phase.shares[part]:.1%}" if part in phase.shares else "" for phase in divided))
        table.add_section()
        table.add_row("all", *(f"{phase.seconds * 1000:,.2f} ms" for phase in divided))
        return table

    def _table_of_phases(self) -> Table:
        from rich.table import Table

        table = Table(title="work done")
        table.add_column("phase")
        for column in ("time", "tokens/s", "FLOPs", "GFLOP/s", "of peak"):
            table.add_column(column, justify="right")
        for phase in self.phases.values():
            share, achieved = self.share_of_peak(phase), phase.flops_per_second
            table.add_row(
                phase.name,
                f"{phase.seconds * 1000:,.2f} ms",
                f"{phase.tokens_per_second:,.0f}",
                "unknown" if phase.flops is None else count(phase.flops),
                "" if achieved is None else f"{achieved / 1e9:,.1f}",
                "" if share is None else f"{share:.1%}",
            )
        return table

    def _notes(self) -> list[str]:
        rate, peak = self.decode_bytes_per_second, self.read_peak
        notes = [
            f"time to first token: {self.time_to_first_token * 1000:,.1f} ms",
            f"decoding reads {size(self.weight_bytes)} of weights and {size(self.cache_bytes)} of cache a step: "
            f"{size(rate)}/s, {rate / peak:.0%} of the {size(peak)}/s that memory gives here",
        ]
        if rate > peak:
            notes[-1] += " (the processor's caches hold the weights)"
        if self.matmul_peak is not None:
            notes.append(
                f"matrix products reach {self.matmul_peak / 1e9:,.1f} GFLOP/s here at {self.settings['dtype']}"
            )
        if self.train_tokens_per_second is not None:
            notes.append(f"training: {self.train_tokens_per_second:,.0f} tokens/s")
        peaks = [f"{size(n_bytes)} after {name}" for name, n_bytes in self.peak_memory.items() if n_bytes is not None]
        return [*notes, f"peak memory: {', '.join(peaks) or 'unknown'}"]


def _as_read(name: str, value: float | int | None) -> tuple[str, str]:
    words = name.removesuffix("_bytes").removesuffix("_s").replace("_", " ")
    if value is None:
        return words, "unknown"
    if name.endswith("_bytes"):
        return words, size(value)
    return words, f"{value:.4g} s" if name.endswith("_s") else f"{value:,.1f}"
