"""GGUF files as they lie on disk: every type of number is read as the gguf package reads it, and no header is
believed."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lamina.core.errors import LaminaError, ModelError
from lamina.core.gguf import file as module
from lamina.core.gguf.file import GGUFFile

gguf = pytest.importorskip("gguf")
TYPES = [
    "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS",
    "TQ1_0", "MXFP4",
]  # fmt: skip


def write(path: Path, tensors: dict[str, tuple[str, Any]], **entries: Any) -> Path:
    """A file by the package's own writer. A tensor is its type and its bytes, rows first, or its numbers for F32."""
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in entries.items():
        writer.add_key_value(key.replace("__", "."), value, gguf.GGUFValueType.get_type(value))
    for name, (kind, data) in tensors.items():
        writer.add_tensor(name, data, raw_dtype=None if kind == "F32" else gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def blocks(kind: str, rows: int = 3, n_blocks: int = 2) -> Any:
    """Rows of blocks with random bytes; what would be an infinite scale is none."""
    _, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    data = np.random.default_rng(0).integers(0, 256, (rows, n_blocks * size), dtype=np.uint8)
    return data & 0xBB  # no exponent of a half is all ones


@pytest.mark.parametrize("kind", TYPES)
def test_each_type_is_read_as_the_package_reads_it(kind: str, tmp_path: Path) -> None:
    data, number = blocks(kind, n_blocks=64), gguf.GGMLQuantizationType[kind]
    file = GGUFFile(write(tmp_path / "m.gguf", {"a": (kind, data)}))
    expected = torch.from_numpy(gguf.quants.dequantize(data, number).astype(np.float32))
    found = file["a"]
    assert found.shape == expected.shape == file.stored["a"].shape
    assert found.dtype is {"F16": torch.float16, "BF16": torch.bfloat16}.get(kind, torch.float32)
    assert found.float().equal(expected)


def test_large_tensors_are_unpacked_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS", 96)
    data = blocks("Q4_0", rows=5, n_blocks=7)
    file = GGUFFile(write(tmp_path / "m.gguf", {"a": ("Q4_0", data)}))
    assert file["a"].equal(torch.from_numpy(gguf.quants.dequantize(data, gguf.GGMLQuantizationType.Q4_0)))


def test_one_of_a_stack_is_read_alone(tmp_path: Path) -> None:
    numbers = np.arange(2 * 3 * 32, dtype=np.float32).reshape(2, 3, 32)
    packed = gguf.quants.quantize(numbers, gguf.GGMLQuantizationType.Q8_0)
    file = GGUFFile(write(tmp_path / "m.gguf", {"a": ("F32", numbers), "b": ("Q8_0", packed)}))
    for name in "ab":
        assert [file.read(name, i).tolist() for i in range(2)] == file[name].tolist()


def test_entries_of_every_type_are_read(tmp_path: Path) -> None:
    told = {"a": True, "b": 7, "c": -7, "d": 0.5, "e": "ü", "f": ["x", "", "é"], "g": [1, 2], "h": [0.25, 2.0]}
    file = GGUFFile(write(tmp_path / "m.gguf", {}, **told))
    assert {key: file.metadata[key] for key in told} == told
    assert file.metadata["general.architecture"] == "llama"


HEADER = b"GGUF" + struct.pack("<IQQ", 3, 1, 0)


def tensor(name: bytes = b"a", shape: tuple[int, ...] = (32,), kind: int = 0, offset: int = 0) -> bytes:
    sizes = struct.pack(f"<{len(shape)}Q", *shape)
    return (
        struct.pack("<Q", len(name)) + name + struct.pack("<I", len(shape)) + sizes + struct.pack("<IQ", kind, offset)
    )


def padded(header: bytes, data: bytes = bytes(128)) -> bytes:
    return header + bytes(-len(header) % 32) + data


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "empty"),
        (b"PK\3\4", "no GGUF file"),
        (b"GGUF", "damaged, or cut short"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60), "damaged, or cut short"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0), "damaged, or cut short"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 62), "damaged, or cut short"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<IIQ", 9, 6, 1 << 61), "cut short"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<I", 99), "type 99"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"k\x09\0\0\0" + struct.pack("<IQ", 9, 1) * 9, "type 9"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"\xff" + struct.pack("<IB", 0, 0), "damaged"),
        (padded(HEADER + tensor(kind=999)), "number 999"),
        (padded(HEADER + tensor(shape=(33,), kind=8)), "blocks of 32"),
        (padded(HEADER + tensor(offset=7)), "no multiple of 32"),
        (padded(HEADER + tensor(shape=(1,) * 5)), "5 dimensions"),
        (padded(HEADER + tensor(shape=(1 << 40, 1 << 40))), "cut short"),
        (padded(HEADER + tensor(), bytes(127)), "cut short"),
        (padded(HEADER.replace(b"\1", b"\2", 1) + tensor() + tensor(b"b", offset=32), bytes(512)), "over 'a'"),
        (padded(HEADER.replace(b"\1", b"\2", 1) + tensor() * 2), "'a' twice"),
    ],
)  # fmt: skip
def test_a_header_that_cannot_be_is_refused(data: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(data)
    with pytest.raises(ModelError, match=r"m\.gguf") as caught:
        GGUFFile(tmp_path / "m.gguf")
    assert told in str(caught.value)


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = write(tmp_path / "m.gguf", {"a": ("F32", np.zeros((2, 32), np.float32))}, key="value", list=["a", "b"])
    data = whole.read_bytes()
    for size in range(len(data) - 1):
        whole.write_bytes(data[:size])
        with pytest.raises(ModelError):
            GGUFFile(whole)


def test_an_unreadable_type_is_named_with_its_tensors(tmp_path: Path) -> None:
    file = GGUFFile(write(tmp_path / "m.gguf", {"a": ("F32", np.zeros(32, np.int32)), "b": ("Q4_0", blocks("Q4_0"))}))
    assert file.unreadable() == ["a: of type I32, which the gguf package does not read"]


def test_without_the_package_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    (tmp_path / "m.gguf").write_bytes(padded(HEADER + tensor()))
    with pytest.raises(LaminaError, match="needs the package gguf") as caught:
        GGUFFile(tmp_path / "m.gguf")
    assert "pip install 'lamina[gguf]'" in str(caught.value)
