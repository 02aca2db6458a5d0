"""Sides of a comparison: each a process of its own that does one round of work at each word and tells its seconds."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(eq=False)
class Side:
    """A process that answers every line with one line of JSON."""

    name: str
    process: subprocess.Popen[str]

    @staticmethod
    def start(name: str, command: list[str], threads: int, verbose: bool = False) -> Side:
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            stderr=None if verbose else subprocess.DEVNULL,
        )
        side = Side(name, process)
        print(f"{name}: {side.answer()}", file=sys.stderr)
        return side

    def ask(self, line: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with code {self.process.wait()}")
        found: dict[str, Any] = json.loads(line)
        return found


def processor() -> str:
    """The machine, as far as it matters to the figures."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor()
    lines = cpuinfo.read_text().splitlines()
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "")
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    kinds = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16") if flag in flags]
    return f"{model}, {os.cpu_count()} cores, {' '.join(kinds)}"
