"""A hash of an object's image data as they lie in the file, so that two objects can be compared without decoding."""

from __future__ import annotations

import hashlib
import struct
from typing import BinaryIO

from pydicom.dataset import Dataset

LAYOUT = (
    "Rows",
    "Columns",
    "NumberOfFrames",
    "BitsAllocated",
    "BitsStored",
    "SamplesPerPixel",
    "PixelRepresentation",
    "PlanarConfiguration",
    "PhotometricInterpretation",
)
"""What says how the bytes are to be read; it goes into the hash."""

_CHUNK = 1 << 20
_UNDEFINED = 0xFFFFFFFF
_LONG_VRS = frozenset({b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"UN"})
_ITEM, _END = 0xFFFEE000, 0xFFFEE0DD


def pixel_digest(file: BinaryIO, dataset: Dataset) -> str:
    """Return the SHA-256 of layout and value of the pixel element that ``file`` stands at (little endian).

    Of encapsulated pixels the items are hashed (PS3.5 A.4). Empty if there is no whole element.
    """
    digest = hashlib.sha256(repr([str(dataset.get(keyword, "")) for keyword in LAYOUT]).encode())
    head = file.read(8)
    if len(head) < 8:
        return ""
    (length,) = struct.unpack("<I", head[4:])
    if head[4:6] in _LONG_VRS:
        (length,) = struct.unpack("<I", file.read(4).ljust(4, b"\0"))
    whole = _items(file, digest) if length == _UNDEFINED else _take(file, length, digest)
    return digest.hexdigest() if whole else ""


def _items(file: BinaryIO, digest: hashlib._Hash) -> bool:
    while len(head := file.read(8)) == 8:
        group, element, length = struct.unpack("<HHI", head)
        tag = group << 16 | element
        if tag == _END:
            return True
        if tag != _ITEM or length == _UNDEFINED or not _take(file, length, digest):
            return False
    return False


def _take(file: BinaryIO, length: int, digest: hashlib._Hash) -> bool:
    while length and (piece := file.read(min(length, _CHUNK))):
        digest.update(piece)
        length -= len(piece)
    return not length
