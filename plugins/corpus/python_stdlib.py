"""The Python sources of the standard library: some megabytes of real text on every machine, without a download.

Files and their contents follow the Python that runs, so figures compare only within one version of it.
"""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from lamina.core import ComponentConfig, Corpus, DataError, Register, hookimpl

SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idle_test", "lib2to3", "__pycache__"}
GOLDEN = 0.6180339887498949  # its multiples modulo 1 fill the unit interval evenly, however many are taken


class PythonStdlibConfig(ComponentConfig):
    max_bytes: int = Field(
        8_000_000, gt=0, description="Take at most this much, from files spread evenly over the library."
    )


class PythonStdlib(Corpus):
    """Each .py file of the standard library, tests left out, is a document."""

    Config = PythonStdlibConfig
    paper = "Python Software Foundation, the standard library"

    def documents(self) -> Iterator[str]:
        root = Path(sysconfig.get_paths()["stdlib"])
        sources = list(_sources(root))
        if not sources:
            raise DataError(
                f"this Python has no library sources in '{root}'", hint="use corpus 'text' with a file of your own"
            )
        chosen, left = set(), self.config.max_bytes
        for i in sorted(range(len(sources)), key=lambda i: i * GOLDEN % 1.0):
            size = len(sources[i][1])
            if size <= left:
                chosen.add(i)
                left -= size
        if not chosen:
            smallest = min(len(data) for _, data in sources)
            raise DataError(
                f"no file of the standard library fits into max_bytes ({self.config.max_bytes})",
                hint=f"the smallest has {smallest} bytes",
            )
        yield from (sources[i][1].decode("utf-8") for i in sorted(chosen))


def _sources(root: Path) -> Iterator[tuple[Path, bytes]]:
    """Path and content of every source that is UTF-8 and not empty, in order of path."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(set(folders) - SKIPPED)
        for path in (Path(folder, name) for name in sorted(names) if name.endswith(".py")):
            try:
                data = path.read_bytes()
                data.decode("utf-8")
            except (OSError, UnicodeDecodeError):
                continue  # some are in other encodings on purpose
            if data.strip():
                yield path, data


@hookimpl
def register_components(register: Register) -> None:
    register("python_stdlib", PythonStdlib)
