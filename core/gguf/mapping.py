"""How a family says itself in a GGUF: which architecture, which metadata its config's keys are, how tensors lie there.

A family has it as `gguf`:

    gguf = GGUF("qwen2", LLAMA_META)

Names of tensors follow from the checkpoint's by the map of the `gguf` package. What is said here is

- `keys`: metadata, named without the architecture, and the config's key it means. `vocab_size` and
  `tie_word_embeddings` are told by tensors and need no entry;
- `layouts`: by a tensor's name in the file without its block, with or without suffix (patterns may be used), how the
  checkpoint's tensor comes of it: llama.cpp turns neighbouring rows of queries and keys together, where a checkpoint
  has halves;
- `names`: tensors that the package calls otherwise than the checkpoint's name suggests, `{}` for the layer;
- `joined`: tensors of the checkpoint that a file holds in pieces.

What an architecture cannot say is found when it is written: it is read again, and the two specs are compared.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from torch import Tensor

from lamina.core.config_keys import ConfigKeys
from lamina.core.layout import SAME, Layout, Move, Stacked

Config = Mapping[str, Any]
NUMBERED = re.compile(r"(.*?\.\d+\..*?)\.(\d+)(?=\.)")  # a second number after the layer's: one of a stack
LAYER = re.compile(r"\.(\d+)\.")
BLOCK = re.compile(r"^blk\.\d+\.")
_ABSENT: Any = object()


class Metadata(ConfigKeys):
    """What a file says of its architecture, keys without its name. `names` are its tensors; those that hold no weights
    can be read."""

    def __init__(
        self, values: Mapping[str, Any], names: Iterable[str], tensors: Mapping[str, Tensor] | None = None
    ) -> None:
        super().__init__(values)
        self.names = frozenset(names)
        self.tensors: Mapping[str, Tensor] = {} if tensors is None else tensors
        self.used: set[str] = set()  # names of tensors that were read as metadata

    def tensor(self, name: str) -> Tensor | None:
        """A tensor that holds no weights, such as divisors of rotary frequencies."""
        if name not in self.tensors:
            return None
        self.used.add(name)
        return self.tensors[name]


@dataclass
class Told:
    """What is to be written. Numbers are numpy's, so that their width is known."""

    values: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)  # why it cannot be written

    def put(self, name: str, value: Any, kind: type) -> None:
        """`kind` is int, float, bool or str; a list has such in each place."""
        make: Any = {int: np.uint32, float: np.float32, bool: bool, str: str}[kind]
        self.values[name] = [make(one) for one in value] if isinstance(value, list) else make(value)

    def metadata(self, names: Iterable[str]) -> Metadata:
        """The same, as it will be read from a file with tensors of these `names`."""
        return Metadata({name: _plain(value) for name, value in self.values.items()}, names, self.tensors)


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value.item() if isinstance(value, np.generic) else value


class MetaItem(ABC):
    """Something that the metadata of a GGUF and a config both say."""

    @abstractmethod
    def read(self, meta: Metadata, config: dict[str, Any]) -> None:
        """Take entries of `meta` and set keys of `config`."""

    @abstractmethod
    def write(self, config: Config, told: Told) -> None:
        """Set entries of `told` from `config`, which a family wrote."""


@dataclass(frozen=True)
class MetaKey(MetaItem):
    """One entry and the config's key of the same meaning.

    Without the entry the config gets `default`, or nothing where there is none. `also` are further entries that are
    written with the same value and must have it. `to` and its inverse `back` are for numbers said in another way.
    llama.cpp does not act on what is `unheeded`, which an export tells.
    """

    name: str
    key: str
    kind: type = int
    default: Any = _ABSENT
    also: tuple[str, ...] = ()
    to: Callable[[Any], Any] | None = None
    back: Callable[[Any], Any] | None = None
    unheeded: bool = False

    def read(self, meta: Metadata, config: dict[str, Any]) -> None:
        found: Any = meta.get(self.name, _ABSENT)
        for name in self.also:
            if (other := meta.get(name, found)) != found:
                meta.wrong(name, f"{other!r}, where {self.name} is {found!r}")
        if found is _ABSENT:
            if self.default is not _ABSENT:
                self._place(config)[self.key.rpartition(".")[2]] = self.default
            return
        if isinstance(found, list):  # one for each layer
            if len(set(found)) != 1:
                meta.wrong(self.name, "no component honours what differs from layer to layer")
                return
            found = found[0]
        kinds: Any = (int, float) if self.kind is float else self.kind
        if isinstance(found, bool) != (self.kind is bool) or not isinstance(found, kinds):
            meta.wrong(self.name, f"{found!r} is no {self.kind.__name__}")
            return
        value = shortest(found) if self.kind is float else found
        self._place(config)[self.key.rpartition(".")[2]] = value if self.to is None else self.to(value)

    def _place(self, config: Config) -> Any:
        """The mapping that holds the key, which may lie in one inside of the config."""
        outer, dot, _ = self.key.partition(".")
        return config.setdefault(outer, {}) if dot and isinstance(config, dict) else config

    def write(self, config: Config, told: Told) -> None:
        value = self._place(config).get(self.key.rpartition(".")[2])
        if value is None:
            return
        for name in (self.name, *self.also):
            told.put(name, value if self.back is None else self.back(value), self.kind)
        if self.unheeded:
            told.notes.append(f"llama.cpp does not act on {self.name}, which is {value}")


@dataclass(frozen=True)
class Means(MetaItem):
    """A key of the config that no file has an entry for, and what llama.cpp takes it to be: a value, or what follows
    from the keys before it."""

    key: str
    value: Any

    def read(self, meta: Metadata, config: dict[str, Any]) -> None:
        config[self.key] = self.value(config) if callable(self.value) else self.value

    def write(self, config: Config, told: Told) -> None:
        pass


@dataclass(frozen=True)
class Present(MetaItem):
    """A key of the config that is one thing where the file has a tensor, and another where not."""

    key: str
    tensor: str
    yes: Any = True
    no: Any = False

    def read(self, meta: Metadata, config: dict[str, Any]) -> None:
        config[self.key] = self.yes if self.tensor in meta.names else self.no

    def write(self, config: Config, told: Told) -> None:
        pass


@dataclass(frozen=True)
class Always(MetaItem):
    """An entry that llama.cpp wants and that no key of the config says: a value, or what follows from the keys before
    it."""

    name: str
    value: Any
    kind: type = int

    def read(self, meta: Metadata, config: dict[str, Any]) -> None:
        wanted = self._of(config)
        found = meta.get(self.name, wanted)
        if (shortest(found) if self.kind is float else found) != wanted:
            meta.wrong(self.name, f"no component honours {found!r}, only {wanted!r}")

    def write(self, config: Config, told: Told) -> None:
        told.put(self.name, self._of(config), self.kind)

    def _of(self, config: Config) -> Any:
        return self.value(config) if callable(self.value) else self.value


def shortest(value: float) -> float:
    """The shortest decimal number that single precision rounds to `value`: what was written before it was rounded."""
    return float(str(np.float32(value)))


@dataclass(frozen=True)
class GGUF:
    """A family's declaration."""

    architecture: str
    keys: Sequence[MetaItem]
    layouts: Mapping[str, Callable[[Config], Layout]] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    joined: Mapping[str, tuple[tuple[str, ...], Callable[[Config], Layout]]] = field(default_factory=dict)
    serves: Callable[[Metadata], bool] = lambda meta: True  # of files of the same architecture, those it reads

    def read(self, meta: Metadata) -> dict[str, Any]:
        """The config of a file with this metadata."""
        config: dict[str, Any] = {}
        for item in self.keys:
            item.read(meta, config)
        return config

    def write(self, config: Config) -> Told:
        """The metadata of a config."""
        told = Told()
        for item in self.keys:
            item.write(config, told)
        return told

    def moves(self, names: Iterable[str], config: Config, known: Callable[[str], str | None]) -> list[Move]:
        """The file's tensors, as `theirs`, for the checkpoint's `names`, as `ours`. `known` is the package's map of
        names without suffix. What is numbered in a layer, such as experts, is one tensor of the file."""
        alone: list[Move] = []
        found: dict[str, list[tuple[int, str]]] = {}
        for name in names:
            if (pieces := self._pieces(name, config)) is not None:
                alone.append(pieces)
                continue
            one = NUMBERED.match(name)
            theirs = self._named(NUMBERED.sub(r"\1", name, count=1), known)
            found.setdefault(theirs, []).append((int(one[2]) if one else -1, name))
        for theirs, several in found.items():
            several.sort()
            ours = tuple(name for _, name in several)
            alone.append(Move(ours, (theirs,), Stacked() if several[0][0] >= 0 else self.layout(theirs, config)))
        return alone

    def layout(self, name: str, config: Config) -> Layout:
        """How the checkpoint's tensor comes of the file's tensor `name`."""
        short = BLOCK.sub("", name)
        names = (short, short.rpartition(".")[0])
        made = next(
            (make for pattern, make in self.layouts.items() if any(fnmatchcase(n, pattern) for n in names)), None
        )
        return SAME if made is None else made(config)

    def _pieces(self, name: str, config: Config) -> Move | None:
        layer = LAYER.search(name)
        pieces = self.joined.get(LAYER.sub(".{}.", name, count=1))
        if pieces is None:
            return None
        names, make = pieces
        return Move((name,), tuple(theirs.format(layer[1] if layer else "") for theirs in names), make(config))

    def _named(self, name: str, known: Callable[[str], str | None]) -> str:
        """The file's name for the checkpoint's, which is returned where nobody knows one."""
        layer = LAYER.search(name)
        general = LAYER.sub(".{}.", name, count=1)
        base, dot, suffix = general.rpartition(".")
        for own, rest in ((self.names.get(general), ""), (self.names.get(base), dot + suffix)):
            if own is not None:
                return own.format(layer[1] if layer else "") + rest
        if (theirs := known(name.rpartition(".")[0])) is not None:
            return f"{theirs}.{suffix}"
        theirs = known(name)  # a tensor that no module holds
        return name if theirs is None else f"{theirs}.weight"
