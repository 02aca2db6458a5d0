"""A GGUF file as it lies on disk: a header of metadata and of tensors, and the tensors, mapped into memory.

    "GGUF" version n_tensors n_entries | entries: key type value | tensors: name shape type offset | padding | data

Little-endian, versions 2 and 3. The file is a stranger's: sizes, offsets and types are checked before they are
believed. The `gguf` package has a reader, which makes some five Python objects for each token of a vocabulary.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lamina.core.checkpoint import some
from lamina.core.errors import ModelError
from lamina.core.extras import load_extra

MAGIC = b"GGUF"
LARGEST_HEADER = 1 << 30  # bytes; the largest vocabularies in use take some 20 MB
STRING, ARRAY, BOOL = 8, 9, 7
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", BOOL: "?", 10: "Q", 11: "q", 12: "d"}
PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}
ROWS = 1 << 20  # values that are de-quantised at once: what lies between stays in the processor's cache


def load_gguf(needed_by: str) -> Any:
    """The `gguf` package, or a LaminaError that says what to install."""
    return load_extra("gguf", "'lamina[gguf]'", needed_by)


@dataclass(frozen=True)
class Packed:
    """A tensor of the file. `shape` has the rows first, as torch does; each row is whole blocks of its type."""

    type: str
    shape: tuple[int, ...]
    start: int
    bytes: int

    @property
    def dtype(self) -> torch.dtype:
        """What it is read as: quantised types have no narrower one that holds every value."""
        return PLAIN.get(self.type, torch.float32)


class GGUFFile(Mapping[str, Tensor]):
    """The tensors of a file, by name, each read when it is asked for; its `metadata`; and how they are `stored`."""

    def __init__(self, path: Path) -> None:
        """ModelError says why a file cannot be used."""
        self.path = path
        self._library = load_gguf(f"reading '{path}'")
        try:
            with open(path, "rb") as file:
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "it is empty"
            raise ModelError(f"{path}: cannot be read ({why})") from None
        self.metadata: dict[str, Any] = {}
        self.stored: dict[str, Packed] = {}
        try:
            self._read_header()
        except (struct.error, UnicodeDecodeError, RecursionError, OverflowError):
            raise ModelError(f"{path}: its header is damaged, or cut short") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.stored)

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, name: str) -> Tensor:
        return self.read(name)

    def read(self, name: str, index: int | None = None) -> Tensor:
        """The tensor as numbers; of a stack only the one at `index`. Plain types lie in the mapped file."""
        packed = self.stored[name]
        shape, start, size = packed.shape, packed.start, packed.bytes
        if index is not None:
            size //= shape[0]
            shape, start = shape[1:], start + index * size
        if packed.type in PLAIN:
            if not prod(shape):
                return torch.empty(shape, dtype=packed.dtype)
            return torch.frombuffer(self._data, dtype=packed.dtype, count=prod(shape), offset=start).reshape(shape)
        per_block, block_bytes = self._blocks(packed.type)
        blocks = np.frombuffer(self._data, np.uint8, size, start).reshape(-1, block_bytes)
        numbers = torch.empty(prod(shape), dtype=torch.float32)
        step = max(1, ROWS // per_block)
        for first in range(0, len(blocks), step):
            part = self._unpack(blocks[first : first + step], packed.type)
            numbers[first * per_block : first * per_block + part.size] = torch.from_numpy(part)
        return numbers.reshape(shape)

    def unreadable(self) -> list[str]:
        """What is wrong with types that the library knows and cannot turn into numbers."""
        wrong = []
        for kind in sorted({packed.type for packed in self.stored.values()} - PLAIN.keys()):
            try:
                self._unpack(np.zeros((1, self._blocks(kind)[1]), np.uint8), kind)
            except NotImplementedError:
                names = [name for name, packed in self.stored.items() if packed.type == kind]
                wrong.append(f"{', '.join(some(names, 3))}: of type {kind}, which the gguf package does not read")
        return wrong

    def _unpack(self, blocks: Any, kind: str) -> Any:
        row = blocks.reshape(1, -1)  # the package works on sixteen rows at a time, so a block each would be slow
        with np.errstate(all="ignore"):  # a stranger's scales may be no numbers
            return self._library.quants.dequantize(row, self._library.GGMLQuantizationType[kind]).reshape(-1)

    def _blocks(self, kind: str) -> tuple[int, int]:
        """Values in a block, and its bytes."""
        values, size = self._library.GGML_QUANT_SIZES[self._library.GGMLQuantizationType[kind]]
        return int(values), int(size)

    # ---- the header

    def _read_header(self) -> None:
        if self._data[:4] != MAGIC:
            raise ModelError(f"{self.path}: no GGUF file: it begins with {self._data[:4]!r}")
        self._place = 4
        version = self._number("I")
        if version not in (2, 3):
            what = "big-endian" if version & 0xFFFF == 0 else f"of version {version}"
            raise ModelError(f"{self.path}: is {what}; little-endian files of versions 2 and 3 are read")
        n_tensors, n_entries = self._number("Q"), self._number("Q")
        for _ in range(n_entries):
            key = self._text()
            value = self._value(self._number("I"))
            if key in self.metadata:
                raise ModelError(f"{self.path}: the header has '{key}' twice")
            self.metadata[key] = value
        found: list[tuple[str, str, tuple[int, ...], int]] = []
        for _ in range(n_tensors):
            name = self._text()
            n_dims = self._number("I")
            if n_dims > 4:
                raise ModelError(f"{self.path}: the header gives '{name}' {n_dims} dimensions")
            shape = tuple(self._number("Q") for _ in range(n_dims))[::-1]
            found.append((name, self._type(name, self._number("I")), shape, self._number("Q")))
        alignment = self.metadata.get("general.alignment", 32)
        if type(alignment) is not int or alignment <= 0 or alignment & (alignment - 1):
            raise ModelError(f"{self.path}: general.alignment is {alignment!r}, no power of two")
        base = -(-self._place // alignment) * alignment
        for name, kind, shape, offset in found:
            per_block, block_bytes = self._blocks(kind)
            if shape and shape[-1] % per_block:
                raise ModelError(f"{self.path}: '{name}' has rows of {shape[-1]}, and {kind} has blocks of {per_block}")
            if name in self.stored:
                raise ModelError(f"{self.path}: the header has '{name}' twice")
            if offset % alignment:
                raise ModelError(f"{self.path}: the header lays '{name}' at {offset}, no multiple of {alignment}")
            self.stored[name] = Packed(kind, shape, base + offset, prod(shape) // per_block * block_bytes)
        self._check_places()

    def _check_places(self) -> None:
        place, before = 0, ""
        for name, packed in sorted(self.stored.items(), key=lambda item: (item[1].start, item[1].bytes)):
            if packed.start < place:
                raise ModelError(f"{self.path}: the header lays '{name}' over '{before}'")
            place, before = packed.start + packed.bytes, name
        if place > len(self._data):
            raise ModelError(
                f"{self.path}: cut short: it has {len(self._data):,} bytes, and its header tells of {place:,}"
            )

    def _type(self, name: str, number: int) -> str:
        try:
            kind = str(self._library.GGMLQuantizationType(number).name)
        except ValueError:
            raise ModelError(
                f"{self.path}: '{name}' is of a type with the number {number}, which the gguf package does not know",
                hint="a newer gguf package may: pip install -U gguf",
            ) from None
        return kind

    def _take(self, size: int) -> int:
        """Go on by `size` bytes; returns where they begin."""
        start, self._place = self._place, self._place + size
        if self._place > len(self._data):
            raise struct.error("the header ends beyond the file")
        if self._place > LARGEST_HEADER:
            raise ModelError(f"{self.path}: its header has more than {LARGEST_HEADER:,} bytes; none is so large")
        return start

    def _number(self, code: str) -> Any:
        return struct.unpack_from(f"<{code}", self._data, self._take(struct.calcsize(f"<{code}")))[0]

    def _text(self) -> str:
        size = self._number("Q")
        start = self._take(size)
        return self._data[start : start + size].decode("utf-8")

    def _value(self, kind: int, depth: int = 0) -> Any:
        if kind in NUMBERS:
            return self._number(NUMBERS[kind])
        if kind == STRING:
            return self._text()
        if kind != ARRAY or depth > 2:
            raise ModelError(f"{self.path}: the header has a value of type {kind}, which there is not")
        of, count = self._number("I"), self._number("Q")
        if of in NUMBERS:
            code = NUMBERS[of]
            start = self._take(count * struct.calcsize(f"<{code}"))
            return list(struct.unpack_from(f"<{count}{code}", self._data, start))
        return [self._value(of, depth + 1) for _ in range(count)]
