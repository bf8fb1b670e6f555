"""The bytes of an original on their way out of the appliance: to a person's folder, or to another system."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from clinic_ai.errors import HomeError
from clinic_ai.store.objects import ObjectStore

PREAMBLE = 128
"""Bytes before the prefix ``DICM`` (PS3.10 section 7.1)."""
_PIECE = 1 << 20


def outgoing(objects: ObjectStore, sha256: str) -> Iterator[bytes]:
    """Yield the bytes of a stored original as they may leave: as received, but with the preamble of DICOM zeroed.

    PS3.10 lets the preamble hold anything, such as the head of a program (``MZ``, ELF): the file is then a scan to one
    reader and a program to another. Zeros are what it says where nothing uses it. A file without a preamble and a PNG
    or JPEG go as they are.

    The last piece is held back until all that was read has its hash. Raise NotFound if it is not there, and HomeError
    if the disk does not give back what was stored.
    """
    digest = hashlib.sha256()
    with objects.path(sha256).open("rb") as stored:
        piece = stored.read(_PIECE)
        digest.update(piece)
        if piece[PREAMBLE : PREAMBLE + 4] == b"DICM":
            piece = bytes(PREAMBLE) + piece[PREAMBLE:]
        while following := stored.read(_PIECE):
            yield piece
            digest.update(following)
            piece = following
    if digest.hexdigest() != sha256:
        raise HomeError(
            f"The stored object {sha256[:12]} is not what was stored; the disk has damaged it.",
            remedy="Restore state/objects from a backup, and have the disk looked at.",
        )
    yield piece
