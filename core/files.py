"""Files that are whole or absent: written beside their place, flushed to the disk, renamed. Imports no torch."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lamina.core.errors import LaminaError, ModelError, RunFailure

_FULL = {errno.ENOSPC, errno.EDQUOT}
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


def write_atomically(path: Path, data: bytes | str) -> None:
    """Make `path` hold `data`. A reader, or a machine that stops at any instant, sees the old file or the new one."""
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = _beside(path)
        try:
            with open(partial, "xb") as file:
                file.write(data.encode("utf-8") if isinstance(data, str) else data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        _fsync(path.parent)


@contextmanager
def atomic_directory(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Gives a new directory to write into; it becomes `path` when the block ends well and is removed when it does not.

    An existing `path` is refused unless it is empty or `replace` is set. Replacing takes two renames: a machine that
    stops between them leaves the old one as `.lamina-….replaced`, never a mixture.
    """
    with _explained(path):
        if not replace and path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ModelError(f"'{path}' already exists", hint="choose another place, or remove it first")
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = _beside(path)
        partial.mkdir()
    try:
        with _explained(path, inside=partial):
            yield partial
        with _explained(path):
            _fsync_tree(partial)
            _move(partial, path)
            _fsync(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


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
def _explained(path: Path, inside: Path | None = None) -> Iterator[None]:
    """Say what went wrong with writing `path`. With `inside`, other people's OSErrors pass unless they are about it."""
    try:
        yield
    except LaminaError:
        raise
    except OSError as error:
        if error.errno in _FULL:
            raise RunFailure(
                f"'{path}' was not written: {error.strerror}", hint="free some space and run the command again"
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
