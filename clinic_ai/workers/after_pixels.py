"""What follows the pixels of an object: bounded here, as those who decode it read all of it.

A library takes zeros behind an image for millions of empty elements, at ten seconds for 20 MiB.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import BinaryIO

UNDEFINED = 0xFFFFFFFF
LONG_VRS = frozenset({b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"UN"})
"""Value representations of pixels whose length has four bytes (PS3.5 7.1.2)."""
SMALL_BYTES = 64 << 10
"""So much of anything may follow: archives pad to whole blocks, and it takes nobody long to read."""
MAX_ELEMENTS = 1_000
MAX_ITEMS = 1 << 20

_ALL_LONG_VRS = LONG_VRS | {b"SQ", b"SV", b"UC", b"UR", b"UT", b"UV"}
_ITEM, _END = 0xFFFEE000, 0xFFFEE0DD


def skip_items(file: BinaryIO, take: Callable[[int], bool]) -> bool:
    """Go through the items of encapsulated pixels (PS3.5 A.4) and have ``take`` read or skip the bytes of each.

    Return whether all of them are there, with their end mark.
    """
    for _ in range(MAX_ITEMS):
        head = file.read(8)
        if len(head) < 8:
            return False
        group, element, length = struct.unpack("<HHI", head)
        tag = group << 16 | element
        if tag == _END:
            return True
        if tag != _ITEM or length == UNDEFINED or not take(length):
            return False
    return False


def junk_after_pixels(file: BinaryIO, size: int, *, implicit_vr: bool) -> int:
    """Return how many of the bytes after the pixel element that ``file`` stands at are no elements of a data set.

    ``size`` is that of the whole object; little endian. 0 if there is nothing to complain of: few bytes, or elements
    with rising tags (PS3.5 7.1) such as private ones, signatures and trailing padding.
    """
    head = file.read(8)
    if len(head) < 8:
        return 0
    end = _skip_pixels(file, head, implicit_vr=implicit_vr)
    if end is None or size - end <= SMALL_BYTES:
        return 0  # an end that cannot be found is for the decoder to tell
    group, element = struct.unpack("<HH", head[:4])
    last = group << 16 | element
    for _ in range(MAX_ELEMENTS):
        here = file.seek(end)
        if size - here <= SMALL_BYTES:
            return 0
        head = file.read(12)
        if len(head) < 12:
            return size - here
        group, element = struct.unpack("<HH", head[:4])
        tag = group << 16 | element
        length, start = _length(head, implicit_vr=implicit_vr)
        if tag <= last or length == UNDEFINED or here + start + length > size:
            return size - here
        last, end = tag, here + start + length
    return size - end


def _skip_pixels(file: BinaryIO, head: bytes, *, implicit_vr: bool) -> int | None:
    length, start = _length(head + file.read(4), implicit_vr=implicit_vr)
    here = file.seek(start - 12, os.SEEK_CUR)
    if length != UNDEFINED:
        return here + length

    def skip(length: int) -> bool:
        file.seek(length, os.SEEK_CUR)
        return True

    return file.tell() if skip_items(file, skip) else None


def _length(head: bytes, *, implicit_vr: bool) -> tuple[int, int]:
    """Return the length of the value of an element, and where in ``head`` it begins."""
    if implicit_vr:
        return struct.unpack("<I", head[4:8])[0], 8
    if head[4:6] in _ALL_LONG_VRS:
        return struct.unpack("<I", head[8:12].ljust(4, b"\0"))[0], 12
    return struct.unpack("<H", head[6:8])[0], 8
