"""Volumes without the identity of their patient, and the reports beside them: NIfTI, NPZ and JSON.

Of NIfTI the header is walked: its four free texts are emptied, extensions (which may hold a whole DICOM header) and
whatever follows the voxels are left out. Of NPZ only the arrays that a training set consists of are written again.
Neither is trusted to be as large as it says. Of a report only what is learned from is kept; its text is free and stays
as it is.
"""

from __future__ import annotations

import gzip
import json
import math
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np

from clinic_ai.errors import InputError

ARRAYS = ("imgs", "gts", "spacing")
"""Of an NPZ file: grey levels, regions, millimetres between voxels."""
MAX_REPORT_BYTES = 1 << 20
_MAX_AXIS = 32767
_ORDERS: tuple[tuple[Literal["little", "big"], str], ...] = (("little", "<"), ("big", ">"))
_CHUNK = 1 << 20
_LEVEL = 4
_LEARNED = ("diseases_mentioned", "findings_list", "report_text", "sections")
"""Of a report, the keys that are kept."""


@dataclass(frozen=True)
class _Layout:
    """Where in the header of a version of NIfTI what stands: formats of ``struct``, and places in bytes."""

    size: int
    offset: str
    offset_at: int
    dim: str
    dim_at: int
    bits_at: int
    texts: dict[int, int]


_NIFTI_1 = _Layout(348, "f", 108, "8h", 40, 72, {4: 10, 14: 18, 148: 80, 228: 24, 328: 16})
_NIFTI_2 = _Layout(540, "q", 168, "8q", 16, 14, {240: 80, 320: 24, 508: 16, 525: 15})


def deidentify_nifti(source: Path, target: Path, max_bytes: int) -> None:
    """Write a NIfTI file again, compressed: its numbers and voxels, and nothing else.

    Raise InputError if it is none, is shorter than its header says, or would be larger than ``max_bytes`` unpacked.
    """
    try:
        with source.open("rb") as raw, _unpacked(raw) as stream:
            header, voxels = _header(stream, max_bytes)
            with target.open("wb") as file, gzip.GzipFile("", "wb", _LEVEL, file, mtime=0) as packed:
                packed.write(header)
                _copy(stream, packed, voxels)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError("unreadable", "It is cut off or damaged: it cannot be unpacked to its end.") from error


def deidentify_npz(source: Path, target: Path, max_bytes: int) -> None:
    """Write the arrays of a training volume again, and nothing else that the archive holds.

    Raise InputError if it lacks ``imgs`` or ``spacing``, holds objects, or would be larger than ``max_bytes`` unpacked.
    """
    try:
        with zipfile.ZipFile(source) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > max_bytes:
                raise _too_large(max_bytes)
        with np.load(source, allow_pickle=False) as kept:
            arrays = {name: np.asarray(kept[name]) for name in ARRAYS if name in kept}
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise InputError("unreadable", "It cannot be read as NPZ with plain arrays.") from error
    if not {"imgs", "spacing"} <= set(arrays) or any(array.dtype.kind not in "biuf" for array in arrays.values()):
        raise InputError("unreadable", f"It does not hold the arrays {', '.join(ARRAYS)} as numbers.")
    with target.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def deidentify_report(source: Path, target: Path) -> None:
    """Write the text of a report again, under the name of no volume. Raise InputError if it is no JSON object."""
    if source.stat().st_size > MAX_REPORT_BYTES:
        raise InputError("too_large", f"It is larger than the {MAX_REPORT_BYTES >> 10} KiB that a report may have.")
    try:
        document = json.loads(source.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise InputError("unreadable", "It cannot be read as JSON in UTF-8.") from error
    if not isinstance(document, dict):
        raise InputError("unreadable", "It is no JSON object.")
    kept = {"volume_id": "volume", **{key: document[key] for key in _LEARNED if key in document}}
    target.write_text(json.dumps(kept, ensure_ascii=False, sort_keys=True), encoding="utf-8")


COPIERS: dict[str, Callable[[Path, Path, int], None]] = {
    "nifti": deidentify_nifti,
    "npz": deidentify_npz,
    "report": lambda source, target, _: deidentify_report(source, target),
}
"""What writes the copy, by the kind of file."""


def _unpacked(raw: IO[bytes]) -> IO[bytes]:
    head = raw.read(2)
    raw.seek(0)
    return gzip.GzipFile(fileobj=raw, mode="rb") if head == b"\x1f\x8b" else raw  # type: ignore[return-value]


def _header(stream: IO[bytes], max_bytes: int) -> tuple[bytes, int]:
    """Return the header to write, and how many bytes of voxels follow; the stream is left at the first of them."""
    begun = stream.read(4)
    kinds = {
        layout.size.to_bytes(4, name): (layout, order) for layout in (_NIFTI_1, _NIFTI_2) for name, order in _ORDERS
    }
    if begun not in kinds:
        raise _no_nifti()
    layout, order = kinds[begun]
    header = bytearray(begun + stream.read(layout.size - 4))
    magic = header[344:348] if layout is _NIFTI_1 else header[4:8]
    if len(header) != layout.size or bytes(magic) not in {b"n+1\0", b"n+2\0"}:
        raise _no_nifti()
    axes, *sides = struct.unpack_from(order + layout.dim, header, layout.dim_at)
    (bits,) = struct.unpack_from(order + "h", header, layout.bits_at)
    (offset,) = struct.unpack_from(order + layout.offset, header, layout.offset_at)
    if not (1 <= axes <= 7 and all(1 <= side <= _MAX_AXIS for side in sides[:axes]) and bits in {8, 16, 32, 64}):
        raise _no_nifti()
    if not (math.isfinite(offset) and layout.size <= offset <= max_bytes):
        raise _no_nifti()
    voxels = math.prod(sides[:axes]) * bits // 8
    if voxels > max_bytes:
        raise _too_large(max_bytes)
    _skip(stream, int(offset) - layout.size)
    for at, length in layout.texts.items():
        header[at : at + length] = bytes(length)
    struct.pack_into(order + layout.offset, header, layout.offset_at, layout.size + 4)
    return bytes(header) + bytes(4), voxels  # four zeros: no extensions


def _skip(stream: IO[bytes], count: int) -> None:
    while count:
        read = len(stream.read(min(_CHUNK, count)))
        if not read:
            raise EOFError
        count -= read


def _copy(source: IO[bytes], target: gzip.GzipFile, count: int) -> None:
    while count:
        part = source.read(min(_CHUNK, count))
        if not part:
            raise EOFError
        target.write(part)
        count -= len(part)


def _no_nifti() -> InputError:
    return InputError("unreadable", "It is no NIfTI file of one volume: its header makes no sense.")


def _too_large(max_bytes: int) -> InputError:
    return InputError("too_large", f"Unpacked it is larger than the {max_bytes >> 20} MiB that are de-identified here.")
