"""Atomic writes: whatever stops a writer, the place holds the old content, the new, or nothing."""

from __future__ import annotations

import errno
import os
import resource
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lamina.core import ModelError, RunFailure
from lamina.core import files as files_module
from lamina.core.files import atomic_directory, remove_leftovers, write_atomically, write_new


def names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def test_bytes_and_text_are_written_and_replace_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    write_atomically(path, b"\0\r\n")
    assert path.read_bytes() == b"\0\r\n"
    write_atomically(path, "é\n")
    assert path.read_bytes() == "é\n".encode()
    assert names(path.parent) == ["file"]


def test_a_name_as_long_as_the_file_system_allows_can_be_written(tmp_path: Path) -> None:
    write_atomically(tmp_path / ("n" * 255), b"x")
    assert names(tmp_path) == ["n" * 255]


def test_a_written_file_has_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").write_bytes(b"")
    write_atomically(tmp_path / "ours", b"")
    with atomic_directory(tmp_path / "folder"):
        pass
    (tmp_path / "usual-folder").mkdir()
    mode = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in names(tmp_path)}
    assert mode["ours"] == mode["usual"]
    assert mode["folder"] == mode["usual-folder"]


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_failure_before_the_rename_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    write_atomically(tmp_path / "file", "old")
    monkeypatch.setattr(files_module.os, function, stop)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_the_content_is_on_the_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, replace, rename = os.fsync, os.replace, os.rename
    monkeypatch.setattr(files_module.os, "fsync", lambda *a: (calls.append("fsync"), fsync(*a)))
    monkeypatch.setattr(files_module.os, "replace", lambda *a: (calls.append("rename"), replace(*a)))
    monkeypatch.setattr(files_module.os, "rename", lambda *a: (calls.append("rename"), rename(*a)))
    write_atomically(tmp_path / "file", "x")
    assert calls == ["fsync", "rename", "fsync"]
    calls.clear()
    with atomic_directory(tmp_path / "folder") as partial:
        (partial / "deep").mkdir()
        (partial / "deep" / "file").write_text("x")
    assert calls == ["fsync", "fsync", "fsync", "rename", "fsync"]  # two folders and a file, the name, its parent


KILLED = """
import os, signal, sys
from pathlib import Path
from lamina.core import files
kill = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
files.os.replace = files.os.rename = kill
path = Path(sys.argv[1])
if sys.argv[2] == "file":
    files.write_atomically(path, "new")
else:
    with files.atomic_directory(path) as partial:
        (partial / "file").write_text("new")
"""


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
@pytest.mark.parametrize("what", ["file", "directory"])
def test_a_writer_killed_before_the_rename_leaves_only_what_is_cleared_away(tmp_path: Path, what: str) -> None:
    path = tmp_path / "place"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), what], env=dict(os.environ))
    assert done.returncode == -9
    assert not path.exists()
    assert len(names(tmp_path)) == 1
    remove_leftovers(tmp_path)
    assert names(tmp_path) == []


def test_clearing_away_touches_nothing_else(tmp_path: Path) -> None:
    for name in ("file", ".hidden", "x.partial", ".lamina-0.replaced"):
        (tmp_path / name).write_text("")
    before = names(tmp_path)
    remove_leftovers(tmp_path)
    assert names(tmp_path) == before


def test_a_directory_appears_when_its_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "folder"
    with atomic_directory(path) as partial:
        (partial / "file").write_text("x")
        assert partial.parent == path.parent  # the same file system, so that the rename is one step
        assert not path.exists()
    assert names(path) == ["file"]
    assert names(path.parent) == ["folder"]


def test_a_block_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with atomic_directory(tmp_path / "folder") as partial:
            (partial / "file").write_text("x")
            raise ValueError("half-way")

    with pytest.raises(ValueError, match="half-way"):
        fail()
    assert names(tmp_path) == []


def test_an_existing_directory_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").write_text("x")
    (tmp_path / "file").write_text("x")
    for name in ("folder", "file"):
        with pytest.raises(ModelError, match=f"{name}' already exists"), atomic_directory(tmp_path / name):
            pytest.fail("the block must not run")
    assert names(tmp_path / "folder") == ["mine"]


def test_an_empty_directory_is_filled(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with atomic_directory(tmp_path / "folder") as partial:
        (partial / "file").write_text("x")
    assert names(tmp_path / "folder") == ["file"]


def test_a_directory_is_replaced_as_a_whole_on_request(tmp_path: Path) -> None:
    for name in ("old", "new"):
        with atomic_directory(tmp_path / "folder", replace=True) as partial:
            (partial / name).write_text("x")
    assert names(tmp_path / "folder") == ["new"]
    assert names(tmp_path) == ["folder"]


def test_a_replacement_that_fails_puts_the_old_directory_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename, calls = os.rename, []

    def second_fails(source: Path, target: Path) -> None:
        calls.append(source)
        if len(calls) == 2:
            raise OSError(errno.EIO, "Input/output error")
        rename(source, target)

    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "old").write_text("x")
    monkeypatch.setattr(files_module.os, "rename", second_fails)
    with (
        pytest.raises(RunFailure, match="Input/output error"),
        atomic_directory(tmp_path / "folder", replace=True) as partial,
    ):
        (partial / "new").write_text("x")
    assert names(tmp_path / "folder") == ["old"]
    assert names(tmp_path) == ["folder"]


def test_a_full_disk_is_a_run_failure_that_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with (
        pytest.raises(RunFailure, match="folder' was not written: No space left") as caught,
        atomic_directory(tmp_path / "folder"),
    ):
        full()
    assert caught.value.exit_code == 1
    monkeypatch.setattr(files_module.os, "fsync", full)
    with pytest.raises(RunFailure, match="file' was not written: No space left"):
        write_atomically(tmp_path / "file", "x")
    assert names(tmp_path) == []


def test_a_full_disk_that_a_library_tells_in_its_own_words_is_the_same(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))  # stands for a disk with no more room than that
    try:
        with (
            pytest.raises(RunFailure, match="folder' was not written: File too large") as caught,
            atomic_directory(tmp_path / "folder", then="go on") as folder,
        ):
            save_file({"x": torch.zeros(1000)}, folder / "x.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "free some space, then go on" in str(caught.value)
    assert names(tmp_path) == []


def test_an_error_inside_names_the_directory_that_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught, atomic_directory(tmp_path / "folder") as partial:
        write_atomically(partial, "a file where a directory is")
    assert str(caught.value).startswith(f"'{tmp_path / 'folder'}' cannot be written")


def test_a_new_file_replaces_none_and_is_whole_or_absent(tmp_path: Path) -> None:
    write_new(tmp_path / "file", "first")
    with pytest.raises(ModelError, match="File exists"):
        write_new(tmp_path / "file", "second")
    assert (tmp_path / "file").read_text() == "first"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        with pytest.raises(RunFailure, match="long' was not written"):
            write_new(tmp_path / "long", "more than ten bytes")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names(tmp_path) == ["file"]


def test_a_place_that_cannot_be_written_is_the_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ModelError, match="cannot be written") as caught:
        write_atomically(tmp_path / "file" / "below", "x")
    assert caught.value.exit_code == 2
    with pytest.raises(ModelError, match="cannot be written"), atomic_directory(tmp_path / "file" / "below"):
        pytest.fail("the block must not run")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ModelError, match="cannot be written"):
        write_atomically(tmp_path / "folder", "x")
    assert names(tmp_path) == ["file", "folder"]


def test_another_files_error_inside_the_block_is_not_blamed_on_the_directory(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_directory(tmp_path / "folder"):
        (tmp_path / "absent").read_text()
    assert names(tmp_path) == []
