"""Files that mean harm or none at all, made from a good slice; each must end in the quarantine with its reason."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable

from PIL import Image

_PIXEL_DATA = struct.pack("<HH", 0x7FE0, 0x0010)


def _before_pixels(whole: bytes, extra: bytes) -> bytes:
    at = whole.rindex(_PIXEL_DATA + b"OW")
    return whole[:at] + extra + whole[at:]


def nested(whole: bytes) -> bytes:
    """Return the slice with two thousand sequences, one inside the other."""
    opening = struct.pack("<HH2sxxL", 0x0040, 0xA730, b"SQ", 0xFFFFFFFF) + struct.pack(
        "<HHL", 0xFFFE, 0xE000, 2**32 - 1
    )
    ends = struct.pack("<HHL", 0xFFFE, 0xE00D, 0) + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    return _before_pixels(whole, opening * 2000 + ends * 2000)


def four_gigabytes(whole: bytes) -> bytes:
    """Return the slice with a text that says to be four gigabytes long."""
    return _before_pixels(whole, struct.pack("<HH2sxxL", 0x0020, 0x4000, b"UT", 0xFFFFFFF0) + b"x")


def deflate_bomb(whole: bytes) -> bytes:
    """Return the slice deflated, followed by what unpacks to 700 MiB."""
    old, new = b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99"
    size = struct.unpack_from("<L", whole, 140)[0]
    meta = whole[144 : 144 + size]
    meta = meta.replace(b"UI" + struct.pack("<H", len(old)) + old, b"UI" + struct.pack("<H", len(new)) + new)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = packer.compress(whole[144 + size :]) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return whole[:140] + struct.pack("<L", len(meta)) + meta + body + block * 700 + packer.flush()


def huge_dimensions(whole: bytes) -> bytes:
    """Return the slice with more columns and rows than anybody has, and the pixels of a small one."""
    for element in (0x0010, 0x0011):
        head = struct.pack("<HH2sH", 0x0028, element, b"US", 2)
        at = whole.index(head) + len(head)
        whole = whole[:at] + b"\xff\xff" + whole[at + 2 :]
    return whole


def png_bomb(_: bytes) -> bytes:
    """Return a small PNG that says to be 100,000 × 100,000 pixels."""
    buffer = io.BytesIO()
    Image.new("1", (8, 8)).save(buffer, "PNG")
    content = bytearray(buffer.getvalue())
    content[16:24] = struct.pack(">LL", 100_000, 100_000)
    content[29:33] = struct.pack(">L", zlib.crc32(content[12:29]))
    return bytes(content)


HOSTILE: tuple[Callable[[bytes], bytes], ...] = (nested, four_gigabytes, deflate_bomb, huge_dimensions, png_bomb)


def junk(whole: bytes, dice: random.Random) -> bytes:
    """Return what lies about in shared folders: text, noise, nothing, or a scan whose copy was cut off."""
    return dice.choice(
        (
            f"Notes of the weekend duty, number {dice.random()}\n".encode() * 20,
            dice.randbytes(4096),
            b"",
            whole[: -dice.randrange(100, 1000)],
        )
    )
