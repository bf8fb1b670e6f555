"""JPEG and JPEG 2000 codestreams without what was written beside the picture: comments, EXIF, thumbnails.

In DICOM pixel data the bytes are overwritten with zeros, so that no length or offset changes. What cannot be walked
through to its end is refused, since nobody could say what is in it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from clinic_ai.errors import InputError

_SOI, _EOI, _SOS, _COM = 0xD8, 0xD9, 0xDA, 0xFE
_ITEM, _DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_JPEG_START, _J2K_START = b"\xff\xd8\xff", b"\xff\x4f\xff\x51"


def jpeg_segments(data: bytes | bytearray) -> Iterator[tuple[int, int, int]]:
    """Yield (marker, start, end) of each segment of a JPEG or JPEG-LS stream, from after SOI to EOI.

    A segment of a scan reaches to the next marker. Raise InputError if it is not such a stream.
    """
    position = 2
    if data[:2] != _JPEG_START[:2]:
        raise _broken()
    while position + 2 <= len(data):
        if data[position] != 0xFF:
            raise _broken()
        marker = data[position + 1]
        if marker == 0xFF:  # fill bytes
            position += 1
            continue
        if marker == _EOI:
            yield marker, position, position + 2
            return
        if marker < 0xC0 or 0xD0 <= marker <= _SOI:
            raise _broken()
        end = position + 2 + _length(data, position + 2)
        if marker == _SOS:
            end = _end_of_scan(data, end)
        yield marker, position, end
        position = end
    raise _broken()


def _length(data: bytes | bytearray, position: int) -> int:
    length = int.from_bytes(data[position : position + 2], "big")
    if length < 2 or position + length > len(data):
        raise _broken()
    return length


def _end_of_scan(data: bytes | bytearray, position: int) -> int:
    while True:
        position = data.find(b"\xff", position)
        if position < 0 or position + 1 >= len(data):
            raise _broken()
        following = data[position + 1]
        if following == 0xFF:
            position += 1
        elif following < 0x80 or 0xD0 <= following <= 0xD7:  # stuffed (JPEG-LS: a bit only), or a restart
            position += 2
        else:
            return position


def kept_of_segment(marker: int, body: bytes | bytearray) -> int:
    """Return how many bytes of the body of a segment are the picture's, counted from its start."""
    if marker == 0xE0 and body[:5] == b"JFIF\0":
        return 12  # what follows is a thumbnail
    if marker == 0xEE and body[:5] == b"Adobe":
        return 12  # says how colours are coded
    if marker == 0xE8 and body[:4] == b"mrfx":
        return 5  # the same of JPEG-LS
    return 0 if marker == _COM or 0xE0 <= marker <= 0xEF or 0xF0 <= marker <= 0xF6 else len(body)


def blank_frames(pixels: bytes) -> bytes:
    """Return encapsulated pixel data (PS3.5 A.4, without its last delimiter), all beside the pictures made zero.

    Streams that are neither JPEG, JPEG-LS nor JPEG 2000 (RLE) are returned as they are. Raise InputError if one
    cannot be walked through.
    """
    result = bytearray(pixels)
    end = 0
    frame: list[tuple[int, int]] = []
    for number, (start, stop) in enumerate(_fragments(result)):
        end = stop
        if number == 0:
            continue  # the basic offset table
        if frame and result[start : start + 4].startswith((_JPEG_START, _J2K_START)):
            _blank_frame(result, frame)
            frame = []
        frame.append((start, stop))
    if frame:
        _blank_frame(result, frame)
    del result[end:]
    return bytes(result)


def _fragments(data: bytearray) -> Iterator[tuple[int, int]]:
    position = 0
    while position < len(data):
        if len(data) - position < 8 or not data.startswith((_ITEM, _DELIMITER), position):
            raise _broken()
        if data.startswith(_DELIMITER, position):
            return
        (length,) = struct.unpack_from("<I", data, position + 4)
        start = position + 8
        if start + length > len(data):
            raise _broken()
        position = start + length
        yield start, position


def _blank_frame(data: bytearray, places: list[tuple[int, int]]) -> None:
    stream = bytearray().join(data[start:stop] for start, stop in places)
    if stream.startswith(_JPEG_START):
        _blank_jpeg(stream)
    elif stream.startswith(_J2K_START):
        _blank_j2k(stream)
    elif stream.startswith(b"\0\0\0\x0cjP  "):
        raise _broken()  # a JP2 file with its boxes, which DICOM forbids
    offset = 0
    for start, stop in places:
        data[start:stop] = stream[offset : offset + stop - start]
        offset += stop - start


def _blank_jpeg(stream: bytearray) -> None:
    last = len(stream)
    for marker, start, end in jpeg_segments(stream):
        last = end
        if marker not in {_EOI, _SOS}:
            body = start + 4
            _zero(stream, body + kept_of_segment(marker, stream[body:end]), end)
    _zero(stream, last, len(stream))


def _blank_j2k(stream: bytearray) -> None:
    """Overwrite the comments of a JPEG 2000 codestream (ISO/IEC 15444-1 Annex A)."""
    position = _blank_markers(stream, 2, 0x90)
    while stream[position : position + 2] == b"\xff\x90":  # SOT, once for each part of a tile
        if position + 12 > len(stream):
            raise _broken()
        (length,) = struct.unpack_from(">I", stream, position + 6)
        # 0: it reaches to the end of the codestream
        end = position + length if length else stream.rfind(b"\xff\xd9")
        if end < position + 14 or end > len(stream) or _blank_markers(stream, position + 12, 0x93) > end:
            raise _broken()
        position = end
    if stream[position : position + 2] != b"\xff\xd9":
        raise _broken()
    _zero(stream, position + 2, len(stream))


def _blank_markers(stream: bytearray, position: int, last: int) -> int:
    """Overwrite the comments from ``position`` on; return where the marker ``last`` stands."""
    while position + 4 <= len(stream) and stream[position] == 0xFF:
        marker = stream[position + 1]
        if marker == last:
            return position
        end = position + 2 + _length(stream, position + 2)
        if marker == 0x64:
            _zero(stream, position + 6, end)
        position = end
    raise _broken()


def _zero(data: bytearray, start: int, end: int) -> None:
    if end > start:
        data[start:end] = bytes(end - start)


def _broken() -> InputError:
    return InputError(
        "compressed_pixels",
        "Its compressed pixels are damaged or of an unknown form, so nobody can say what else is written in them.",
        remedy="Let the sender export it without compression.",
    )
