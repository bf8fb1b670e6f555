"""The file in which an engine hands over masks: written by engines, read by renderer and previewer.

One ``.npz`` with one array ``masks``, uint8 (segment, slice, row, ⌈columns / 8⌉): bits, packed along the columns by
``numpy.packbits``. Whoever reads it trusts nothing: what it must hold follows from the ``Segmentation`` beside it, and
no more than that is ever read or inflated.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from clinic_ai.domain import Segmentation
from clinic_ai.errors import InputError

MAX_PACKED_BYTES = 1 << 30
"""Most bytes of packed bits that are kept of one segmentation."""
_MEMBER = "masks.npy"
_END = struct.Struct("<4s4H2LH")
"""End of the central directory (APPNOTE 4.3.16): without a comment, the last thing in the file."""
_ZIP64_LOCATOR_BYTES = 20
_MOST_DIRECTORY_BYTES = 1024
_MOST_HEADER_BYTES = 4096
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    OSError,
    EOFError,
    ValueError,
    SyntaxError,
    struct.error,
    NotImplementedError,
)

Bits = npt.NDArray[np.bool_]
Packed = npt.NDArray[np.uint8]


def write_masks(path: Path, masks: Bits) -> None:
    """Write masks, bool (segment, slice, row, column), so that renderer and previewer can read them."""
    with path.open("wb") as file:
        np.savez_compressed(file, masks=np.packbits(masks, axis=-1))


def read_masks(path: Path, segmentation: Segmentation, wanted: Collection[int]) -> dict[int, Packed]:
    """Return by their numbers the wanted segments that show anything, uint8 (slice, row, ⌈columns / 8⌉), packed.

    Raise InputError if the file does not hold just what ``segmentation`` says.
    """
    shape = (
        len(segmentation.segments),
        len(segmentation.slices),
        segmentation.rows,
        -(-segmentation.columns // 8),
    )
    each = shape[1] * shape[2] * shape[3]
    if packed_bytes(segmentation, len(wanted)) > MAX_PACKED_BYTES:
        raise InputError("masks_too_large", "The masks are larger than can be worked on.")
    found: dict[int, Packed] = {}
    try:
        with path.open("rb") as file:
            _check_end(file)
            with zipfile.ZipFile(file) as archive, archive.open(_only_member(archive)) as member:
                _check_header(member, shape)
                for number in range(1, shape[0] + 1):
                    data = _exactly(member, each)
                    if number in wanted and data.strip(b"\0"):
                        found[number] = np.frombuffer(data, dtype=np.uint8).reshape(shape[1:])
                if member.read(1):
                    raise InputError("masks_wrong", "The file of masks holds more than it should.")
    except _DAMAGED as error:
        raise InputError("masks_unreadable", "The file of masks is damaged or is no file of masks.") from error
    return found


def packed_bytes(segmentation: Segmentation, segments: int) -> int:
    """Return how many bytes so many of its segments take; one is in hand even where none is wanted."""
    return max(1, segments) * len(segmentation.slices) * segmentation.rows * -(-segmentation.columns // 8)


def unpacked(packed: Packed, columns: int) -> Bits:
    """Return packed bits as bool with so many columns; the other axes stay."""
    return np.unpackbits(packed, axis=-1, count=columns).view(np.bool_)


def _check_end(file: IO[bytes]) -> None:
    """Raise InputError unless the archive ends as one with a single plain member does.

    The directory is looked at before zipfile reads it: one that names a million members would fill the memory.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - _END.size - _ZIP64_LOCATOR_BYTES))
    tail = file.read()
    if len(tail) < _END.size + _ZIP64_LOCATOR_BYTES:
        raise InputError("masks_unreadable", "The file of masks is damaged or is no file of masks.")
    signature, disk, first, here, members, directory, _, comment = _END.unpack(tail[_ZIP64_LOCATOR_BYTES:])
    plain = (signature, disk, first, here, members, comment) == (b"PK\5\6", 0, 0, 1, 1, 0)
    if not plain or directory > _MOST_DIRECTORY_BYTES or tail.startswith(b"PK\6\7"):
        raise InputError("masks_wrong", "The file of masks is no archive of just one array.")
    file.seek(0)


def _only_member(archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    (info,) = archive.infolist()
    known = info.compress_type in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
    if info.filename != _MEMBER or not known or info.flag_bits & 1:
        raise InputError("masks_wrong", "The file of masks is no archive of just one array.")
    return info


def _check_header(member: IO[bytes], shape: tuple[int, ...]) -> None:
    """Raise InputError unless the array is of plain bytes, in C order and of just this shape; nothing is unpickled."""
    major, _ = np.lib.format.read_magic(member)
    if major == 1:
        read = np.lib.format.read_array_header_1_0(member, max_header_size=_MOST_HEADER_BYTES)
    else:
        raise InputError("masks_wrong", "The array of masks has a format that is not known.")
    if read != (shape, False, np.dtype(np.uint8)):
        raise InputError("masks_wrong", "The array of masks has another shape or type than the analysis says.")


def _exactly(member: IO[bytes], size: int) -> bytes:
    data = member.read(size)
    if len(data) != size:
        raise InputError("masks_wrong", "The file of masks is cut short.")
    return data
