"""PNG and JPEG files without their metadata. Pixels are not touched: what was compressed is copied as it is.

The orientation that a camera notes is kept, for without it the picture lies on its side.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from clinic_ai.errors import InputError
from clinic_ai.workers.confidentiality.codestreams import jpeg_segments, kept_of_segment

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_ORIENTATION = 0x0112
_CRITICAL = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
_SMALL = {b"tRNS": 256, b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"sBIT": 4, b"bKGD": 6, b"pHYs": 9}
"""Chunks that say how the pixels are to be shown, and the longest that each may be (PNG, 3rd edition, section 11.3)."""
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


class _Chunk(NamedTuple):
    kind: bytes
    body: bytes


def deidentify_png(data: bytes) -> bytes:
    """Return a PNG file with nothing but its picture. Raise InputError if it is damaged."""
    chunks = _chunks(data)
    header = chunks[0].body
    palette = header[9] == 3
    pixels = _only_pixels(b"".join(c.body for c in chunks if c.kind == b"IDAT"), header)
    kept = [chunk for chunk in chunks if _keeps(chunk, palette)]
    first = next((i for i, chunk in enumerate(kept) if chunk.kind == b"IDAT"), None)
    if first is None:
        raise _damaged("PNG")
    before = [chunk for chunk in kept[:first] if chunk.kind != b"IEND"]
    orientation = _orientation(data)
    if orientation:
        before.append(_Chunk(b"eXIf", orientation))
    return _SIGNATURE + b"".join(map(_written, (*before, *pixels, _Chunk(b"IEND", b""))))


def _keeps(chunk: _Chunk, palette: bool) -> bool:
    if chunk.kind in _CRITICAL:
        return chunk.kind != b"PLTE" or palette  # else it is a mere suggestion, and room for anything
    return len(chunk.body) <= _SMALL.get(chunk.kind, -1)


def _chunks(data: bytes) -> list[_Chunk]:
    chunks: list[_Chunk] = []
    position = len(_SIGNATURE)
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        body = data[position + 8 : position + 8 + length]
        check = data[position + 8 + length : position + 12 + length]
        if len(check) < 4 or int.from_bytes(check, "big") != zlib.crc32(kind + body):
            break
        chunks.append(_Chunk(kind, body))
        position += 12 + length
        if kind == b"IEND":
            if chunks[0].kind != b"IHDR" or len(chunks[0].body) != 13:
                break
            return chunks
    raise _damaged("PNG")


def _only_pixels(packed: bytes, header: bytes) -> list[_Chunk]:
    """Return IDAT chunks that end where the compressed pixels do."""
    columns, rows, depth, colour = struct.unpack_from(">IIBB", header)
    row = 1 + (columns * depth * _CHANNELS.get(colour, 4) + 7) // 8
    most = 2 * rows * row + (1 << 16)  # interlaced pictures need a little more than rows × row
    unpacker = zlib.decompressobj()
    size, rest = 0, packed
    try:
        while rest and not unpacker.eof:
            size += len(unpacker.decompress(rest, 1 << 20))
            rest = unpacker.unconsumed_tail
            if size > most:
                raise _damaged("PNG")
    except zlib.error as error:
        raise _damaged("PNG") from error
    if not unpacker.eof or size < rows * row // 2:
        raise _damaged("PNG")
    used = packed[: len(packed) - len(unpacker.unused_data)]
    return [_Chunk(b"IDAT", used[start : start + (1 << 30)]) for start in range(0, len(used), 1 << 30)]


def _written(chunk: _Chunk) -> bytes:
    check = zlib.crc32(chunk.kind + chunk.body)
    return struct.pack(">I4s", len(chunk.body), chunk.kind) + chunk.body + struct.pack(">I", check)


def deidentify_jpeg(data: bytes) -> bytes:
    """Return a JPEG file with nothing but its picture. Raise InputError if it is damaged."""
    orientation = _orientation(data)
    pieces: list[bytes] = []
    front: list[bytes] = []
    try:
        for marker, start, end in jpeg_segments(data):
            if marker == 0xD9 or not 0xE0 <= marker <= 0xFE:
                pieces.append(data[start:end])
                continue
            body = data[start + 4 : end]
            kept = body[: kept_of_segment(marker, body)]
            if marker == 0xE0 and kept:
                kept += b"\0\0"  # no thumbnail
            if kept:
                front.append(_segment(marker, kept))
    except InputError as error:
        raise _damaged("JPEG") from error
    if orientation:
        front.append(_segment(0xE1, b"Exif\0\0" + orientation))
    return b"\xff\xd8" + b"".join(front) + b"".join(pieces)


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def _orientation(data: bytes) -> bytes:
    """Return EXIF (TIFF, little endian) that holds the orientation and nothing else; empty if it is upright."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            found = image.getexif().get(_ORIENTATION, 1)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, struct.error, KeyError) as error:
        raise _damaged("picture") from error
    if not isinstance(found, int) or not 2 <= found <= 8:
        return b""
    return struct.pack("<2sHIHHHIHHI", b"II", 42, 8, 1, _ORIENTATION, 3, 1, found, 0, 0)


def _damaged(kind: str) -> InputError:
    return InputError("damaged", f"The {kind} is damaged or ends too early.", remedy="Export it again.")
