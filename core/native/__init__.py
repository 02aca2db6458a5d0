"""lamina's kernels in C++, for what plain torch is slow at on a CPU: a few rows through many weights.

They are compiled once by the machine's own C++ compiler, for its own processor, and kept in the cache folder; without a
compiler everything runs as plain torch. Sources are plain C++ with a C interface, so compiling takes seconds and needs
neither torch's headers nor a build tool.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from ctypes import POINTER, Structure, c_float, c_int, c_int32, c_int64, c_void_p
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_dir
from torch import Tensor

SOURCES = Path(__file__).parent
MAIN = "program.cpp"
FLAGS = (
    "-std=c++20",
    "-O3",
    "-march=native",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-shared",
    "-fPIC",
)
KINDS = {torch.float32: 0, torch.bfloat16: 1}  # of numbers; 2 and 3 are quantised
INT8, INT4, GROUP = 2, 3, 32


class Op(Structure):
    _fields_ = (
        *((name, c_int32) for name in ("code", "kind", "source", "out", "other", "weight", "state", "mask")),
        *((name, c_int64) for name in ("source_at", "out_at", "other_at", "width", "heads", "head_width")),
        *((name, c_int64) for name in ("kv_heads", "value_width", "turned", "interleaved", "k", "experts")),
        ("a", c_float),
        ("b", c_float),
        ("p", c_void_p),
        ("r", c_void_p),
    )


class Weight(Structure):
    _fields_ = (
        ("kind", c_int32),
        ("out", c_int64),
        ("width", c_int64),
        ("data", c_void_p),
        ("scales", c_void_p),
        ("offsets", c_void_p),
        ("bias", c_void_p),
    )


class State(Structure):
    _fields_ = (("k", c_void_p), ("v", c_void_p), ("capacity", c_int64))


class Mask(Structure):
    _fields_ = (("allowed", c_void_p), ("per_row", c_int64))


class Run(Structure):
    _fields_ = (
        ("batch", c_int64),
        ("tokens", c_int64),
        ("used", c_int64),
        ("positions", c_void_p),
        ("buffers", POINTER(c_void_p)),
        ("states", POINTER(State)),
        ("masks", POINTER(Mask)),
        ("first", c_int64),
        ("end", c_int64),
        ("many", c_int64),
    )


class Library:
    """The compiled kernels."""

    def __init__(self, file: Path) -> None:
        found: Any = ctypes.CDLL(str(file))
        found.lamina_sizes.restype = c_int64
        structures: tuple[type[Structure], ...] = (Op, Weight, State, Mask, Run)
        for which, structure in enumerate(structures):
            assert found.lamina_sizes(which) == ctypes.sizeof(structure), structure.__name__
        found.lamina_program.restype = c_void_p
        found.lamina_program.argtypes = [c_void_p, c_int, c_void_p, c_int, c_void_p, c_void_p, c_int]
        found.lamina_program_free.argtypes = [c_void_p]
        found.lamina_program_run.argtypes = [c_void_p, c_void_p, c_int]
        found.lamina_linear.argtypes = [c_void_p, c_void_p, c_int64, c_void_p, c_int]
        found.lamina_widen.argtypes = [c_void_p, c_void_p, c_int, c_int]
        self._widen = found.lamina_widen
        self.program: Callable[..., int] = found.lamina_program
        self.free: Callable[[int], None] = found.lamina_program_free
        found.lamina_program_time.argtypes = [c_void_p, c_void_p]
        self.time: Callable[[int, Any], None] = found.lamina_program_time
        self.run: Callable[..., None] = found.lamina_program_run
        self._linear = found.lamina_linear

    def linear(self, weight: Weight, x: Tensor, out: Tensor) -> None:
        """x (n, in) float32 times the weight into out (n, out) float32; both contiguous."""
        address = ctypes.addressof(weight)
        self._linear(address, x.data_ptr(), x.shape[0], out.data_ptr(), torch.get_num_threads())

    def widen(self, weight: Weight, out: Tensor) -> None:
        """Quantised weights in full into out (out, in), float32 or bfloat16."""
        self._widen(ctypes.addressof(weight), out.data_ptr(), KINDS[out.dtype], torch.get_num_threads())


@functools.cache
def library() -> Library | None:
    """The kernels, compiled if they have to be; None where they cannot be, `why_not` then tells why."""
    if os.environ.get("LAMINA_NATIVE") == "0":
        _why.append("LAMINA_NATIVE is 0")
        return None
    try:
        return Library(_compiled())
    except (OSError, subprocess.SubprocessError, _Unusable) as error:
        _why.append(str(error).strip() or type(error).__name__)
        return None


_why: list[str] = []


def why_not() -> str:
    """Why there are no kernels, "" when there are."""
    return "" if library() is not None else _why[-1]


class _Unusable(Exception):
    pass


def _compiled() -> Path:
    if sys.platform == "win32" or sys.byteorder != "little":
        raise _Unusable(f"no kernels for {sys.platform}")
    sources = sorted(path for path in SOURCES.iterdir() if path.suffix in (".h", ".cpp"))
    told = hashlib.sha256(" ".join((*FLAGS, platform.machine(), _processor())).encode())
    for source in sources:
        told.update(source.read_bytes())
    folder = Path(os.environ.get("LAMINA_CACHE") or user_cache_dir("lamina"))
    file = folder / f"kernels-{told.hexdigest()[:20]}.so"
    if file.exists():
        return file
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CXX") or "c++", "g++", "clang++"))), None)
    if compiler is None:
        raise _Unusable("there is no C++ compiler (install g++ or clang++, or name one in CXX)")
    folder.mkdir(parents=True, exist_ok=True)
    print("compiling lamina's kernels for this processor, once", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".kernels-") as work:
        made = Path(work) / file.name
        for threads in ("-fopenmp", "-pthread"):  # torch's own threads where the compiler knows of them
            command = [compiler, *FLAGS, threads, str(SOURCES / MAIN), "-o", str(made)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=600)
            if done.returncode == 0:
                break
        else:
            line = next((line for line in done.stderr.splitlines() if "error" in line), "no reason given")
            raise _Unusable(f"{compiler} could not compile the kernels: {line}")
        made.replace(file)  # several processes may compile at once; each puts a whole file in place
    return file


def _processor() -> str:
    """What tells apart processors that cannot run each other's code."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())


__all__ = ["GROUP", "INT4", "INT8", "KINDS", "Library", "Mask", "Op", "Run", "State", "Weight", "library", "why_not"]
