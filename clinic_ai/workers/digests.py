"""Hashes of an object's image data and of its data set as they lie in the file, to compare objects without decoding."""

from __future__ import annotations

import hashlib
import struct
from typing import BinaryIO

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset

from clinic_ai.workers.after_pixels import LONG_VRS, UNDEFINED, skip_items

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


def dataset_digest(file: BinaryIO, transfer_syntax_uid: str) -> str:
    """Return the SHA-256 of transfer syntax and data set: of all but preamble and file meta information (PS3.10 7.1).

    Whoever writes an object into a file writes a file meta information of his own, so that the same object comes as
    other bytes from a folder and from the network.
    """
    file.seek(128)
    file.seek(132 if file.read(4) == b"DICM" else 0)
    read_dataset(file, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, *_: tag >> 16 != 2)
    digest = hashlib.sha256(transfer_syntax_uid.encode() + b"\0")
    while piece := file.read(_CHUNK):
        digest.update(piece)
    return digest.hexdigest()


def pixel_digest(file: BinaryIO, dataset: Dataset) -> str:
    """Return the SHA-256 of layout and value of the pixel element that ``file`` stands at (little endian).

    Of encapsulated pixels the items are hashed (PS3.5 A.4). Empty if there is no whole element.
    """
    digest = hashlib.sha256(repr([str(dataset.get(keyword, "")) for keyword in LAYOUT]).encode())
    head = file.read(8)
    if len(head) < 8:
        return ""
    (length,) = struct.unpack("<I", head[4:])
    if head[4:6] in LONG_VRS:
        (length,) = struct.unpack("<I", file.read(4).ljust(4, b"\0"))

    def take(length: int) -> bool:
        while length and (piece := file.read(min(length, _CHUNK))):
            digest.update(piece)
            length -= len(piece)
        return not length

    whole = skip_items(file, take) if length == UNDEFINED else take(length)
    return digest.hexdigest() if whole else ""
