"""Main memory that is freed and asked for again at every training step stays with the process.

glibc gives large blocks back to the system as they are freed. A training step frees and asks for the same hundreds of
megabytes over and over, and each time the system has to find and clear every page: on a virtual machine that takes ten
times as long as writing to a page that is there. Elsewhere than on glibc this does nothing.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # names of options in glibc's malloc.h
KEEP, USUAL_TRIM, USUAL_MMAPS = 2**31 - 1, 128 * 1024, 65_536


@contextmanager
def reused_memory() -> Iterator[None]:
    """Within, freed memory is kept for what is asked for next; at the end what is free goes back to the system."""
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(MMAP_MAX, 0)  # no block is a mapping of its own, which would go back when it is freed
    libc.mallopt(TRIM_THRESHOLD, KEEP)
    try:
        yield
    finally:
        libc.mallopt(MMAP_MAX, USUAL_MMAPS)
        libc.mallopt(TRIM_THRESHOLD, USUAL_TRIM)
        libc.malloc_trim(0)
