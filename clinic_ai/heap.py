"""The heap of a process with many threads that runs for months.

glibc gives threads heaps of their own ("arenas", up to eight for each core), so that none waits for another. What is
freed in one serves that one only, and a single object in use keeps all the memory below it: under the light load of
``benchmarks/soak.py`` they took 24 MB after 15 minutes and 40 MB after 40, nearly all of it free. Python runs one
thread at a time and SQLite takes a lock of its own for each allocation, so the daemon gains nothing by them.
"""

from __future__ import annotations

import ctypes

LARGE_BYTES = 128 << 10
"""What is as large as this gets pages of its own, which go back when it is freed. glibc begins with this size too, but
raises it up to 32 MiB as such blocks come and go; then the odd large answer to a client tears holes into the heap."""

_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
"""From glibc's malloc.h; see mallopt(3)."""


def share_one_heap() -> bool:
    """Let all threads of this process use one heap. Call it before there is a second thread: arenas are never given up.

    Return whether the C library knows how; one without ``mallopt`` (musl) has one heap anyway.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(_M_ARENA_MAX, 1) == mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES) == 1


def give_back() -> None:
    """Give the whole pages of the heap that nothing uses back to the kernel; it takes a millisecond or two.

    glibc does so by itself only at the end of the heap, and something always lies there.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
