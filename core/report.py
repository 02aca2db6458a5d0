"""What a decoder is and costs, as data. A figure that could not be measured is None, and a note says why."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class LayerGroup:
    """Layers that are alike."""

    layers: tuple[int, ...]
    block: str
    parts: str
    parameters: int  # of one layer

    @property
    def ranges(self) -> str:
        """(0, 1, 2, 4) -> '0-2, 4'"""
        runs: list[list[int]] = []
        for layer in self.layers:
            if runs and runs[-1][1] == layer - 1:
                runs[-1][1] = layer
            else:
                runs.append([layer, layer])
        return ", ".join(f"{first}-{last}" if last > first else f"{first}" for first, last in runs)


@dataclass(frozen=True)
class CacheCost:
    """Bytes of the decode cache. Rolling windows stop growing and recurrent states never do, hence three figures."""

    per_token: int  # of one sequence, while every layer still grows
    per_token_at_context: int  # what one more token adds at the context's end
    total: int  # for the whole batch at the context


@dataclass(frozen=True)
class Memory:
    """Bytes by use. `total` is None when one of them is."""

    uses: dict[str, int | None]

    @property
    def total(self) -> int | None:
        known = [n for n in self.uses.values() if n is not None]
        return sum(known) if len(known) == len(self.uses) else None


@dataclass(frozen=True)
class Report:
    """Counted from the real modules on the meta device: see `lamina.core.account`."""

    name: str
    n_layers: int
    context: int
    batch: int
    dtype: str
    layers: list[LayerGroup]
    parameters: dict[str, int]  # by kind of part, tied ones once
    total: int
    active: int | None  # that take part in the work for one token
    flops_forward: int | None  # per token
    flops_training: int | None  # per token, forward and backward
    cache: CacheCost | None
    inference: Memory
    training: Memory
    tied: bool
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        data = asdict(self)
        for name in ("inference", "training"):
            memory: Memory = getattr(self, name)
            data[name] = {**memory.uses, "total": memory.total}
        for group, made in zip(self.layers, data["layers"], strict=True):
            made["layers"] = group.ranges
            made["count"] = len(group.layers)
        return data
