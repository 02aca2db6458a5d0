"""How tensors of a checkpoint become a decoder's, and back: small layouts that compose, each with its inverse.

`ours` goes from a checkpoint's tensors to the decoder's, `theirs` back; one is the inverse of the other, so what is
declared once serves import and export. Layouts act on the first axis unless they say otherwise, and so on a matrix and
on its bias alike.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lamina.core.errors import ModelError


class Layout(ABC):
    """A bijection between some tensors of a checkpoint and some of a decoder."""

    @abstractmethod
    def ours(self, theirs: list[Tensor]) -> list[Tensor]:
        """The checkpoint's tensors -> the decoder's"""

    @abstractmethod
    def theirs(self, ours: list[Tensor]) -> list[Tensor]:
        """The decoder's tensors -> the checkpoint's"""


@dataclass(frozen=True)
class Same(Layout):
    """Nothing changes but the name."""

    def ours(self, theirs: list[Tensor]) -> list[Tensor]:
        return theirs

    def theirs(self, ours: list[Tensor]) -> list[Tensor]:
        return ours


@dataclass(frozen=True)
class Transposed(Layout):
    """A matrix the checkpoint keeps (in, out), as GPT-2's Conv1D does. A vector stays as it is."""

    def ours(self, theirs: list[Tensor]) -> list[Tensor]:
        return [tensor.transpose(-1, -2) if tensor.dim() > 1 else tensor for tensor in theirs]

    def theirs(self, ours: list[Tensor]) -> list[Tensor]:
        return self.ours(ours)


@dataclass(frozen=True)
class Joined(Layout):
    """Several tensors of the checkpoint, of these many rows, are one of the decoder, in this order. In a stack the
    rows are the second axis."""

    sizes: tuple[int, ...]
    axis: int = 0

    def ours(self, theirs: list[Tensor]) -> list[Tensor]:
        return [torch.cat(theirs, self.axis)]

    def theirs(self, ours: list[Tensor]) -> list[Tensor]:
        return list(torch.split(ours[0], list(self.sizes), self.axis))


@dataclass(frozen=True)
class Alternating(Layout):
    """Several tensors of the checkpoint are one of the decoder in which their rows take turns, in a stack as the second
    axis."""

    parts: int = 2
    axis: int = 0

    def ours(self, theirs: list[Tensor]) -> list[Tensor]:
        return [torch.stack(theirs, self.axis + 1).flatten(self.axis, self.axis + 1)]

    def theirs(self, ours: list[Tensor]) -> list[Tensor]:
        shape = list(ours[0].shape)
        shape[self.axis : self.axis + 1] = [shape[self.axis] // self.parts, self.parts]
        return list(ours[0].reshape(shape).unbind(self.axis + 1))


@dataclass(frozen=True)
class Woven(Layout):
    """Rows that take turns: in each of `groups` groups the checkpoint has `sizes[i]` rows of part i, for each i in
    turn; the decoder has the parts whole, one after the other.

    GPT-NeoX's fused projection is `Woven(n_heads, (head_dim,) * 3)`, a gate and an up that alternate row by row
    `Woven(hidden_dim, (1, 1))`.
    """

    groups: int
    sizes: tuple[int, ...]

    def ours(self, theirs: list[Tensor]) -> list[Tensor]:
        rows = theirs[0].reshape(self.groups, sum(self.sizes), *theirs[0].shape[1:])
        parts = torch.split(rows, list(self.sizes), 1)
        return [torch.cat([part.flatten(0, 1) for part in parts])]

    def theirs(self, ours: list[Tensor]) -> list[Tensor]:
        parts = torch.split(ours[0], [self.groups * size for size in self.sizes])
        grouped = [
            part.reshape(self.groups, size, *part.shape[1:]) for part, size in zip(parts, self.sizes, strict=True)
        ]
        return [torch.cat(grouped, 1).flatten(0, 1)]


@dataclass(frozen=True)
class Stacked(Layout):
    """One tensor of the checkpoint holds, along its first axis, one for each of several parts: stacked experts."""

    def ours(self, theirs: list[Tensor]) -> list[Tensor]:
        return list(theirs[0].unbind())

    def theirs(self, ours: list[Tensor]) -> list[Tensor]:
        return [torch.stack(ours)]


@dataclass(frozen=True)
class Reshaped(Layout):
    """The same numbers in the same order, of another shape."""

    checkpoint: tuple[int, ...]
    decoder: tuple[int, ...]

    def ours(self, theirs: list[Tensor]) -> list[Tensor]:
        return [tensor.reshape(self.decoder) if tuple(tensor.shape) == self.checkpoint else tensor for tensor in theirs]

    def theirs(self, ours: list[Tensor]) -> list[Tensor]:
        return [tensor.reshape(self.checkpoint) for tensor in ours]


@dataclass(frozen=True)
class Offset(Layout):
    """The decoder's weight is the checkpoint's plus a constant."""

    by: float

    def ours(self, theirs: list[Tensor]) -> list[Tensor]:
        return [tensor + self.by for tensor in theirs]

    def theirs(self, ours: list[Tensor]) -> list[Tensor]:
        return [tensor - self.by for tensor in ours]


@dataclass(frozen=True)
class Constants(Layout):
    """After some tensors of the decoder the checkpoint keeps single numbers, each of which has this value."""

    values: tuple[float, ...]

    def ours(self, theirs: list[Tensor]) -> list[Tensor]:
        made, kept = theirs[: -len(self.values)], theirs[-len(self.values) :]
        for tensor, value in zip(kept, self.values, strict=True):
            if not tensor.is_meta and not math.isclose(tensor.item(), value, rel_tol=0.01):  # bfloat16 has rounded it
                raise ModelError(f"a tensor holds {tensor.item():g}, and no component honours another than {value:g}")
        return made

    def theirs(self, ours: list[Tensor]) -> list[Tensor]:
        return [*ours, *(ours[0].new_full((), value) for value in self.values)]


@dataclass(frozen=True)
class Multiplied(Layout):
    """The decoder's weight is the checkpoint's times a constant. A power of two takes nothing from it."""

    by: float

    def ours(self, theirs: list[Tensor]) -> list[Tensor]:
        return [tensor * self.by for tensor in theirs]

    def theirs(self, ours: list[Tensor]) -> list[Tensor]:
        return [tensor / self.by for tensor in ours]


@dataclass(frozen=True)
class Each(Layout):
    """A layout of one tensor, for each of several."""

    layout: Layout

    def ours(self, theirs: list[Tensor]) -> list[Tensor]:
        return [self.layout.ours([tensor])[0] for tensor in theirs]

    def theirs(self, ours: list[Tensor]) -> list[Tensor]:
        return [self.layout.theirs([tensor])[0] for tensor in ours]


@dataclass(frozen=True)
class Beside(Layout):
    """For each of several tensors a layout of its own."""

    layouts: tuple[Layout, ...]

    def ours(self, theirs: list[Tensor]) -> list[Tensor]:
        return [layout.ours([tensor])[0] for layout, tensor in zip(self.layouts, theirs, strict=True)]

    def theirs(self, ours: list[Tensor]) -> list[Tensor]:
        return [layout.theirs([tensor])[0] for layout, tensor in zip(self.layouts, ours, strict=True)]


@dataclass(frozen=True)
class Dealt(Layout):
    """Tensors cut into pieces that are put together anew.

    `cuts` has the rows of each piece, tensor by tensor of the checkpoint; `hands` has for each tensor of the decoder
    the pieces it is made of, numbered through all tensors.
    """

    cuts: tuple[tuple[int, ...], ...]
    hands: tuple[tuple[int, ...], ...]

    def ours(self, theirs: list[Tensor]) -> list[Tensor]:
        pairs = zip(theirs, self.cuts, strict=True)
        pieces = [piece for tensor, rows in pairs for piece in torch.split(tensor, list(rows))]
        return [torch.cat([pieces[number] for number in hand]) for hand in self.hands]

    def theirs(self, ours: list[Tensor]) -> list[Tensor]:
        rows = [n for cut in self.cuts for n in cut]
        pieces: dict[int, Tensor] = {}
        for tensor, hand in zip(ours, self.hands, strict=True):
            pieces |= zip(hand, torch.split(tensor, [rows[number] for number in hand]), strict=True)
        numbers = iter(range(len(rows)))
        return [torch.cat([pieces[next(numbers)] for _ in cut]) for cut in self.cuts]


@dataclass(frozen=True)
class Inverse(Layout):
    """A layout the other way round."""

    layout: Layout

    def ours(self, theirs: list[Tensor]) -> list[Tensor]:
        return self.layout.theirs(theirs)

    def theirs(self, ours: list[Tensor]) -> list[Tensor]:
        return self.layout.ours(ours)


class Chain(Layout):
    """One layout after the other, from the checkpoint's side."""

    def __init__(self, *layouts: Layout) -> None:
        self.layouts = layouts

    def ours(self, theirs: list[Tensor]) -> list[Tensor]:
        for layout in self.layouts:
            theirs = layout.ours(theirs)
        return theirs

    def theirs(self, ours: list[Tensor]) -> list[Tensor]:
        for layout in reversed(self.layouts):
            ours = layout.theirs(ours)
        return ours


SAME = Same()


@dataclass(frozen=True)
class Move:
    """Modules, or tensors, of a decoder and those of the checkpoint that hold the same numbers.

    Names leave `.weight` and `.bias` out: both move alike, where the decoder has them. A checkpoint that spells them
    otherwise says how.
    """

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    layout: Layout = SAME
    weight: str = ".weight"
    bias: str = ".bias"

    def expand(self, tensors: Iterable[str]) -> list[tuple[tuple[str, ...], tuple[str, ...], Layout]]:
        """(the decoder's names, the checkpoint's, layout) for those among the decoder's `tensors`."""
        found = []
        for suffix, spelled in ((".weight", self.weight), (".bias", self.bias), ("", "")):
            names = tuple(name + suffix for name in self.ours)
            if all(name in tensors for name in names):
                found.append((names, tuple(name + spelled for name in self.theirs), self.layout))
        return found


@dataclass(frozen=True)
class Either:
    """Several ways in which checkpoints hold the same tensors. What is written is the first."""

    ways: tuple[tuple[Move, ...], ...]


def move(
    ours: str | Sequence[str],
    theirs: str | Sequence[str],
    layout: Layout = SAME,
    *,
    weight: str = ".weight",
    bias: str = ".bias",
) -> Move:
    """A Move of one name or several to one or several."""
    return Move(_names(ours), _names(theirs), layout, weight, bias)


def _names(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)
