"""Files that are whole or absent: written beside their place, flushed to the disk, renamed. Imports no torch."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lamina.core.errors import LaminaError, ModelError, RunFailure

AGAIN = "run the command again"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_UNWRITABLE = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENOTEMPTY,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.EINVAL,
}


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Gives a new file to write; it becomes `path` when the block ends well and is removed when it does not. A reader,
    or a machine that stops at any instant, sees the old file or the new one."""
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    partial = _beside(path)
    try:
        with explained(path, inside=partial):
            yield partial
        with explained(path):
            _fsync(partial)
            os.replace(partial, path)
            _fsync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes | str) -> None:
    """Make `path` hold `data`, as `atomic_file` does."""
    with atomic_file(path) as partial, open(partial, "xb") as file:
        file.write(data.encode("utf-8") if isinstance(data, str) else data)


@contextmanager
def atomic_directory(path: Path, *, replace: bool = False, then: str = AGAIN) -> Iterator[Path]:
    """Gives a new directory to write into; it becomes `path` when the block ends well and is removed when it does not.

    An existing `path` is refused unless it is empty or `replace` is set. Replacing takes two renames: a machine that
    stops between them leaves the old one as `.lamina-….replaced`, never a mixture.
    """
    with explained(path):
        if not replace and path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ModelError(f"'{path}' already exists", hint="choose another place, or remove it first")
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = _beside(path)
        partial.mkdir()
    try:
        with explained(path, inside=partial, then=then):
            yield partial
        with explained(path, then=then):
            _fsync_tree(partial)
            _move(partial, path)
            _fsync(path.parent)
    except LaminaError as error:
        error.rename(str(partial), str(path))
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_new(path: Path, text: str) -> None:
    """Make a file that must not be there yet."""
    with explained(path), open(path, "x", encoding="utf-8") as file:
        try:
            file.write(text)
            file.flush()
        except OSError:
            path.unlink()
            raise


def remove_leftovers(directory: Path) -> None:
    """Remove what writers killed half-way left in `directory`. Only for its sole writer."""
    for path in directory.glob(".lamina-*.partial"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()


def _beside(path: Path, state: str = "partial") -> Path:
    # Its own short name: `path`'s may already be as long as the file system allows.
    return path.parent / f".lamina-{secrets.token_hex(8)}.{state}"


def _move(partial: Path, path: Path) -> None:
    if path.is_dir() and not path.is_symlink() and any(path.iterdir()):
        old = _beside(path, "replaced")
        os.rename(path, old)
        try:
            os.rename(partial, path)
        except BaseException:
            os.rename(old, path)
            raise
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.rename(partial, path)


def _fsync(path: Path) -> None:
    if os.name == "nt":
        return  # Windows opens no directories
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _fsync_tree(root: Path) -> None:
    for folder, _, names in os.walk(root):
        for name in names:
            _fsync(Path(folder, name))
        _fsync(Path(folder))


@contextmanager
def explained(path: Path, inside: Path | None = None, then: str = AGAIN) -> Iterator[None]:
    """Say what went wrong with writing `path`. With `inside`, other people's OSErrors pass unless they are about it.
    `then` is what to do once there is room again."""
    try:
        with _told_by_the_system():
            yield
    except OSError as error:
        if error.errno in _FULL:
            raise RunFailure(
                f"'{path}' was not written: {error.strerror}", hint=f"free some space, then {then}"
            ) from error
        if inside is not None and not _is_about(error, inside):
            raise
        if error.errno in _UNWRITABLE:
            raise ModelError(
                f"'{path}' cannot be written: {error.strerror}", hint="choose a place where you may write"
            ) from error
        raise RunFailure(f"'{path}' was not written: {error}") from error


def _is_about(error: OSError, folder: Path) -> bool:
    return any(str(name).startswith(str(folder)) for name in (error.filename, error.filename2) if name is not None)


@contextmanager
def _told_by_the_system() -> Iterator[None]:
    """Libraries in Rust tell a full disk in words of their own, which end with the system's number for it."""
    try:
        yield
    except (LaminaError, OSError):
        raise
    except Exception as error:
        told = re.search(r"\(os error (\d+)\)", str(error))
        if told is None:
            raise
        raise OSError(int(told[1]), os.strerror(int(told[1]))) from error
