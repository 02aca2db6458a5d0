"""The python_stdlib corpus."""

from __future__ import annotations

import json
import sysconfig
from pathlib import Path

import pytest

from lamina.core import DataError
from lamina.plugins.corpus.python_stdlib import PythonStdlib, PythonStdlibConfig


def corpus(max_bytes: int = 8_000_000) -> list[str]:
    return list(PythonStdlib(PythonStdlibConfig(max_bytes=max_bytes), Path()).documents())


def test_documents_are_library_sources_the_same_at_every_reading() -> None:
    assert corpus(300_000) == corpus(300_000)
    assert Path(json.__file__).read_bytes().decode() in corpus(100_000_000)


@pytest.mark.parametrize("max_bytes", [20_000, 1_000_000])
def test_the_limit_is_kept_and_nearly_used_up(max_bytes: int) -> None:
    size = sum(len(text.encode()) for text in corpus(max_bytes))
    assert max_bytes * 0.9 < size <= max_bytes


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    return tmp_path


def test_a_part_is_spread_over_the_whole_library(library: Path) -> None:
    for i in range(100):
        (library / f"{i:03}.py").write_text(f"{i:03}")
    numbers = [int(text) for text in corpus(3 * 20)]
    assert numbers == sorted(numbers)
    assert [sum(low <= n < low + 25 for n in numbers) for low in (0, 25, 50, 75)] == [5, 5, 5, 5]


def test_tests_packages_and_other_encodings_are_left_out(library: Path) -> None:
    for name in ("b.py", "a/x.py", "test/x.py", "a/tests/x.py", "site-packages/x.py", "lib2to3/x.py", "a.pyc"):
        path = library / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (library / "latin.py").write_bytes(b"# caf\xe9")
    (library / "empty.py").write_text("\n")
    assert corpus() == ["b.py", "a/x.py"]


def test_a_python_without_sources_is_an_error(library: Path) -> None:
    with pytest.raises(DataError, match="no library sources"):
        corpus()


def test_a_limit_below_every_file_is_an_error(library: Path) -> None:
    (library / "a.py").write_text("x" * 50)
    with pytest.raises(DataError, match=r"max_bytes \(10\)") as caught:
        corpus(10)
    assert "the smallest has 50 bytes" in str(caught.value)
