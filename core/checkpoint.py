"""Safetensors on disk: a folder of one file, or of shards with an index; read and written one tensor at a time.

Files come from strangers, so a header is checked before it is believed: sizes, offsets, what an index names. Only
safetensors are read. A pickle can run code when it is loaded, and is refused.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lamina.core.errors import ModelError, RunFailure

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
SHARD_BYTES = 5_000_000_000  # of tensors in a file; more are written as several files
LARGEST_HEADER = 100_000_000  # bytes, as the safetensors library has it
LARGEST_JSON = 200_000_000
LARGEST_RANK = 32  # axes of a tensor
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Stored:
    """A tensor in a file."""

    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]


class Checkpoint:
    """The tensors of a folder, by name. Files are mapped into memory and read when a tensor is asked for."""

    def __init__(self, tensors: Mapping[str, Stored]) -> None:
        self.tensors = dict(tensors)
        self._open: dict[Path, Any] = {}

    @classmethod
    def of(cls, folder: Path) -> Checkpoint:
        """ModelError names every file that cannot be used."""
        index, single = folder / INDEX, folder / WEIGHTS
        if single.is_file():
            return cls(read_header(single))
        if index.is_file():
            return cls(_sharded(folder, index))
        files = sorted(folder.glob("*.safetensors"))
        if len(files) == 1:
            return cls(read_header(files[0]))
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
        if pickles and not files:
            raise ModelError(
                f"{folder}: its weights are pickles ({', '.join(pickles[:3])}), and a pickle can run code when loaded",
                hint="use the repository's safetensors, or convert them where you trust them",
            )
        what = f"several safetensors files and no {INDEX}" if files else f"no {WEIGHTS} and no {INDEX}"
        raise ModelError(f"{folder}: {what}")

    def read(self, name: str) -> Tensor:
        """The tensor, which lies in the mapped file."""
        file = self.tensors[name].file
        try:
            if file not in self._open:
                self._open[file] = safe_open(file, framework="pt")
            tensor: Tensor = self._open[file].get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{file}: '{name}' cannot be read ({error})") from None
        return tensor


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a stranger's file. ModelError names a file that is none."""
    try:
        if path.exists() and not path.is_file():
            raise ModelError(f"{path}: not a file")  # reading a pipe would wait for ever
        if path.stat().st_size > LARGEST_JSON:
            raise ModelError(f"{path}: has {path.stat().st_size:,} bytes, and such a file has at most {LARGEST_JSON:,}")
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not JSON ({error})", hint="it may be cut short") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from None
    if not isinstance(found, dict):
        raise ModelError(f"{path}: not a JSON object")
    return found


def _sharded(folder: Path, index: Path) -> dict[str, Stored]:
    listed = read_json(index).get("weight_map")
    if not isinstance(listed, dict) or not listed or not all(isinstance(name, str) for name in listed.values()):
        raise ModelError(f"{index}: it has no weight_map of tensors to files")
    wrong, tensors = [], dict[str, Stored]()
    headers: dict[str, dict[str, Stored]] = {}
    for name in sorted(set(listed.values())):
        # Links may lead out, since download caches are made of them; names may not.
        if name in ("", ".", "..") or Path(name).name != name or "\\" in name:
            wrong.append(f"'{name}' lies outside the folder")
        elif not name.endswith(".safetensors"):
            wrong.append(f"'{name}' is not a safetensors file, and others can run code when loaded")
        elif not (folder / name).is_file():
            wrong.append(f"'{name}' does not exist")
        else:
            try:
                headers[name] = read_header(folder / name)
            except ModelError as error:
                wrong.append(error.message)
    for tensor, name in listed.items():
        if name in headers and tensor not in headers[name]:
            wrong.append(f"'{name}' holds no '{tensor}'")
        elif name in headers:
            tensors[tensor] = headers[name][tensor]
    if wrong:
        raise ModelError(f"{index}: the shards do not fit it" + "".join(f"\n  {line}" for line in some(wrong)))
    for header in headers.values():
        tensors |= {tensor: stored for tensor, stored in header.items() if tensor not in tensors}
    return tensors


def read_header(file: Path) -> dict[str, Stored]:
    """What a safetensors file says it holds, or ModelError where that cannot be so."""
    try:
        size = file.stat().st_size
        with open(file, "rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            if size < 8 or not 0 < length <= min(LARGEST_HEADER, size - 8):
                raise ModelError(
                    f"{file}: no safetensors file: its header cannot have {length:,} bytes of {size:,}",
                    hint="it may be cut short",
                )
            header = json.loads(opened.read(length))
    except (ValueError, RecursionError):
        raise ModelError(f"{file}: no safetensors file: its header is not JSON") from None
    except OSError as error:
        raise ModelError(f"{file}: cannot be read ({error.strerror})") from None
    if not isinstance(header, dict):
        raise ModelError(f"{file}: no safetensors file: its header is no JSON object")
    header.pop("__metadata__", None)
    found: dict[str, Stored] = {}
    spans = []
    for name, entry in header.items():
        try:
            dtype, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
            numbers = (*shape, start, end)
            if not isinstance(dtype, str) or len(numbers) > LARGEST_RANK + 2:
                raise TypeError
            if not all(type(n) is int and 0 <= n < 1 << 63 for n in numbers):
                raise TypeError
        except (TypeError, ValueError, KeyError):
            raise ModelError(f"{file}: the header says of '{name}' what cannot be") from None
        if dtype not in DTYPES:
            known = ", ".join(DTYPES)
            raise ModelError(f"{file}: '{name}' is {dtype}, which is not read", hint=f"convert it to one of {known}")
        found[name] = Stored(file, DTYPES[dtype], shape)
        claimed = torch.empty((), dtype=DTYPES[dtype]).element_size()
        for n in shape:
            claimed *= n
        if end - start != claimed:
            raise ModelError(
                f"{file}: '{name}' is {dtype} {list(shape)}, {claimed:,} bytes; the header gives {end - start:,}"
            )
        spans.append((start, end, name))
    place = 0
    for start, end, name in sorted(spans):
        if start != place:
            raise ModelError(f"{file}: the header lays '{name}' over another tensor, or leaves a gap before it")
        place = end
    if 8 + length + place != size:
        lacks = "cut short: it" if 8 + length + place > size else "it"
        raise ModelError(f"{file}: {lacks} has {size:,} bytes, and its header tells of {8 + length + place:,}")
    return found


def some(lines: list[str], most: int = 20) -> list[str]:
    """The first of them, and how many there are besides."""
    return lines if len(lines) <= most else [*lines[:most], f"… and {len(lines) - most} more"]


Shapes = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]


class Writer:
    """`file`, or where the tensors are many shards of its name and an index beside it. Tensors come in any order."""

    def __init__(self, file: Path, tensors: Shapes) -> None:
        shards = _shares(tensors)
        stem, n_shards = file.name.removesuffix(".safetensors"), len(shards)
        names = [file.name]
        if n_shards > 1:
            names = [f"{stem}-{number:05}-of-{n_shards:05}.safetensors" for number in range(1, n_shards + 1)]
            placed = {name: shard for shard, part in zip(names, shards, strict=True) for name in part}
            total = sum(_bytes(dtype, shape) for dtype, shape in tensors.values())
            index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(placed.items()))}
            file.with_name(f"{file.name}.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        self.left = set(tensors)
        self._shards = [_Shard(file.with_name(name), part) for name, part in zip(names, shards, strict=True)]
        self._shard_of = {name: shard for shard in self._shards for name in shard.tensors}

    def write(self, name: str, tensor: Tensor) -> None:
        self._shard_of[name].write(name, tensor)
        self.left.remove(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for shard in self._shards:
            shard.close()
        if kind is None and self.left:
            raise RunFailure(f"tensors were left out: {', '.join(some(sorted(self.left)))}")


class _Shard:
    """A safetensors file made one tensor at a time: the header first, each tensor then at its place."""

    def __init__(self, file: Path, tensors: Shapes) -> None:
        self.file, self.tensors, self.offsets = file, dict(tensors), dict[str, int]()
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        place = 0
        # The largest elements first, so that every tensor lies at a multiple of its element's size.
        for name in sorted(tensors, key=lambda name: (-tensors[name][0].itemsize, name)):
            dtype, shape = tensors[name]
            end = place + _bytes(dtype, shape)
            header[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [place, end]}
            self.offsets[name], place = place, end
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self.start = 8 + len(text)
        self._file: BinaryIO = open(file, "xb")  # noqa: SIM115 closed by `close`
        with self._named():
            self._file.write(len(text).to_bytes(8, "little") + text)

    def write(self, name: str, tensor: Tensor) -> None:
        dtype, shape = self.tensors[name]
        assert (tensor.dtype, tuple(tensor.shape)) == (dtype, shape), name
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        with self._named():
            self._file.seek(self.start + self.offsets[name])
            if flat.numel():
                self._file.write(flat.view(torch.uint8).numpy().data)

    def close(self) -> None:
        with self._named():
            self._file.close()

    @contextmanager
    def _named(self) -> Iterator[None]:
        """What goes wrong while writing says in which file."""
        try:
            yield
        except OSError as error:
            error.filename = error.filename or str(self.file)
            raise


def _bytes(dtype: torch.dtype, shape: tuple[int, ...]) -> int:
    return dtype.itemsize * math.prod(shape)


def _shares(tensors: Shapes) -> list[Shapes]:
    """The tensors in their order, as many to a file as it may hold; one that is larger has a file to itself."""
    shares: list[dict[str, tuple[torch.dtype, tuple[int, ...]]]] = [{}]
    held = 0
    for name, (dtype, shape) in tensors.items():
        size = _bytes(dtype, shape)
        if shares[-1] and held + size > SHARD_BYTES:
            shares.append({})
            held = 0
        shares[-1][name] = (dtype, shape)
        held += size
    return list(shares)


def copy_files(names: Iterable[str], source: Path, target: Path) -> list[str]:
    """Copy those of `names` that `source` has; returns them. What leads to a folder or a device is left."""
    found = [name for name in names if (source / name).is_file()]
    for name in found:
        target.mkdir(exist_ok=True)
        shutil.copyfile(os.path.realpath(source / name), target / name)
    return found
