"""A GGUF as a source of imports: its metadata a config, its tensors a checkpoint's, its vocabulary tokenizer files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lamina.core.checkpoint import Checkpoint, Stored
from lamina.core.errors import ModelError, did_you_mean
from lamina.core.family import Family
from lamina.core.gguf.file import GGUFFile, load_gguf
from lamina.core.gguf.mapping import GGUF, Metadata
from lamina.core.layout import Move, Stacked
from lamina.core.plan import decoder_tensors, plan
from lamina.core.registry import Registry
from lamina.core.resolved import ResolvedSpec

# Entries of an architecture that say nothing of what a decoder computes.
IDLE = frozenset({"vocab_size", "rope.scaling.finetuned", "tensor_data_layout"})
EMBEDDING, HEAD = "token_embd.weight", "output.weight"


class GGUFCheckpoint(Checkpoint):
    """The tensors under the names and in the layout that a family's checkpoints have."""

    def __init__(self, file: GGUFFile, moves: Iterable[Move], used: Iterable[str]) -> None:
        self.file = file
        moves = [move for move in moves if all(name in file.stored for name in move.theirs)]
        self.moves = {name: (move, place) for move in moves for place, name in enumerate(move.ours)}
        self._last: tuple[Move, list[Tensor]] | None = None
        moved = {name for move in moves for name in move.theirs}
        left = file.stored.keys() - moved - set(used)
        tensors = {name: Stored(file.path, file.stored[name].dtype, file.stored[name].shape) for name in left}
        for move in moves:
            dtype = file.stored[move.theirs[0]].dtype
            made = move.layout.ours([torch.empty(file.stored[name].shape, device="meta") for name in move.theirs])
            tensors |= {
                name: Stored(file.path, dtype, tuple(one.shape)) for name, one in zip(move.ours, made, strict=False)
            }
        super().__init__(tensors)

    def read(self, name: str) -> Tensor:
        move, place = self.moves[name]
        if isinstance(move.layout, Stacked):  # one of many: the others need not be unpacked for it
            return self.file.read(move.theirs[0], place)
        if self._last is None or self._last[0] is not move:
            self._last = None
            self._last = move, move.layout.ours([self.file[theirs] for theirs in move.theirs])
        return self._last[1][place]


class GGUFReading:
    """What a file says, for the family that reads it."""

    def __init__(self, path: Path, registry: Registry, family: str | None = None) -> None:
        self.file = GGUFFile(path)
        architecture = self.file.metadata.get("general.architecture")
        if not isinstance(architecture, str):
            raise ModelError(f"{path}: does not say its general.architecture")
        self.architecture = architecture
        prefix = f"{self.architecture}."
        values = {k.removeprefix(prefix): v for k, v in self.file.metadata.items() if k.startswith(prefix)}
        self.meta = Metadata(values, self.file.stored, self.file)
        self.name, self.family, self.gguf = self._choose(registry, family)
        self.config = self.gguf.read(self.meta)
        if EMBEDDING in self.file.stored:
            self.config["vocab_size"] = self.file.stored[EMBEDDING].shape[0]
        self.config.setdefault("tie_word_embeddings", HEAD not in self.file.stored)

    def problems(self, ignored: Iterable[str]) -> list[str]:
        """Entries that are wrong, or that nobody took."""
        prefix = f"{self.architecture}."
        names = {name.removeprefix(prefix) for name in ignored}
        left = self.meta.left(IDLE | names)
        return [
            *self.file.unreadable(),
            *(f"{prefix}{problem}" for problem in self.meta.problems),
            *(
                f"{prefix}{key}: no component honours {self.meta.values[key]!r:.60} (--ignore {prefix}{key})"
                for key in left
            ),
        ]

    def checkpoint(self, spec: ResolvedSpec) -> Checkpoint:
        names = checkpoint_names(self.family, spec)
        known = name_map(self.architecture, spec.layers.n_layers)
        return GGUFCheckpoint(self.file, self.gguf.moves(names, self.config, known), self.meta.used)

    def _choose(self, registry: Registry, name: str | None) -> tuple[str, Family, GGUF]:
        entries = registry.entries("family") if name is None else [registry.get("family", name)]
        offered: list[tuple[str, Any, GGUF]] = []
        for entry in entries:
            component: Any = entry.component
            if component.gguf is not None:
                offered.append((entry.name, component, component.gguf))
        found = [one for one in offered if one[2].architecture == self.architecture and one[2].serves(self.meta)]
        if not found:
            known = sorted({gguf.architecture for *_, gguf in offered})
            who = "no family reads" if name is None else f"the family {name} does not read"
            raise ModelError(
                f"{self.file.path}: {who} the architecture {self.architecture!r}",
                hint=did_you_mean(str(self.architecture), known),
                note=f"known: {', '.join(known)}" if known else "",
            )
        named, component, gguf = min(found, key=lambda one: (one[1].rank, one[0]))
        return named, component(), gguf


def checkpoint_names(family: Family, spec: ResolvedSpec) -> list[str]:
    """The tensors that a checkpoint of the family has for the spec, as it exports them."""
    return [name for step in plan(family, spec, decoder_tensors(spec)).steps for name in step.theirs]


def name_map(architecture: str, n_layers: int) -> Any:
    """The `gguf` package's map of checkpoints' names, without suffix, to a file's; None for those it does not know."""
    library = load_gguf(f"the architecture {architecture!r}")
    kind = next((kind for kind, name in library.MODEL_ARCH_NAMES.items() if name == architecture), None)
    return (lambda name: None) if kind is None else library.get_tensor_name_map(kind, n_layers).get_name
