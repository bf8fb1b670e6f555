"""Files that mean harm or are merely odd, each made here; the list of what has to be survived.

``QUARANTINED`` names for each the code of the reason it is quarantined for, ``STORED`` are odd and good all the same.
"""

from __future__ import annotations

import io
import itertools
import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pydicom
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, MediaStorageDirectoryStorage
from scans import write_ct_slice

SEEDS = itertools.count()


def slice_bytes(**changes: object) -> bytes:
    """Return a CT slice of a study of its own, some attributes changed; values are written as they are."""
    buffer = io.BytesIO()
    with tempfile.NamedTemporaryFile() as file:
        write_ct_slice(Path(file.name), seed=next(SEEDS))
        dataset = pydicom.dcmread(file.name)
    with pydicom.config.disable_value_validation():
        for keyword, value in changes.items():
            setattr(dataset, keyword, value)
        dataset.save_as(buffer)
    return buffer.getvalue()


def element(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr
    size = len(value) if length is None else length
    long = vr in {b"OB", b"OW", b"SQ", b"UN", b"UT"}
    return head + (struct.pack("<xxL", size) if long else struct.pack("<H", size)) + value


def before_pixels(extra: bytes) -> bytes:
    whole = slice_bytes()
    at = whole.rindex(struct.pack("<HH", 0x7FE0, 0x0010) + b"OW")
    return whole[:at] + extra + whole[at:]


def without_meta(whole: bytes) -> bytes:
    return whole[132 + 12 + struct.unpack_from("<L", whole, 140)[0] :]


def deflate_bomb() -> bytes:
    """Return a deflated object of some hundred kilobytes that unpacks to 700 MiB."""
    whole = slice_bytes()
    meta = pydicom.dcmread(io.BytesIO(whole)).file_meta
    meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    out = pydicom.filebase.DicomBytesIO()
    out.write(whole[:132])
    pydicom.filewriter.write_file_meta_info(out, meta)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    out.write(packer.compress(without_meta(whole)) + packer.flush(zlib.Z_FULL_FLUSH))
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    out.write(block * 700 + packer.flush())
    return out.getvalue()


def nested(depth: int) -> bytes:
    """Return a slice whose ContentSequence is nested ``depth`` times, all lengths undefined."""
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    ends = struct.pack("<HHL", 0xFFFE, 0xE00D, 0) + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    opening = element(0x0040A730, b"SQ", b"", 0xFFFFFFFF) + item
    return before_pixels(opening * depth + ends * depth)


def png_bomb() -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (8, 8)).save(buffer, "PNG")
    content = bytearray(buffer.getvalue())
    content[16:24] = struct.pack(">LL", 100_000, 100_000)
    content[29:33] = struct.pack(">L", zlib.crc32(content[12:29]))
    return bytes(content)


def jpeg_bomb() -> bytes:
    """Return a JPEG whose frame header (SOF0) says 65500 × 65500 pixels."""
    content = bytearray(jpeg())
    at = content.index(b"\xff\xc0")
    content[at + 5 : at + 9] = struct.pack(">HH", 65500, 65500)
    return bytes(content)


def png_text_bomb() -> bytes:
    """Return a PNG with a compressed text (iTXt) of half a megabyte that unpacks to 512 MiB."""
    content = png()
    packer = zlib.compressobj(9)
    text = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    chunk = b"iTXt" + b"Comment\0\1\0\0\0" + text + block * 511 + packer.flush()
    return (
        content[:33] + struct.pack(">L", len(chunk) - 4) + chunk + struct.pack(">L", zlib.crc32(chunk)) + content[33:]
    )


def index_of_media() -> bytes:
    """Return a DICOMDIR that refers to files outside of its medium (as CVE-2026-32711 did)."""
    record = Dataset()
    record.DirectoryRecordType = "IMAGE"
    with pydicom.config.disable_value_validation():
        record.ReferencedFileID = ["..", "..", "..", "etc", "passwd"]
    whole = slice_bytes(SOPClassUID=MediaStorageDirectoryStorage, DirectoryRecordSequence=[record])
    dataset = pydicom.dcmread(io.BytesIO(whole))
    dataset.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    del dataset.PixelData
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def private(size: int) -> bytes:
    """Return a slice with a private block (PS3.5 7.8.1), a private sequence, and a private value of ``size`` bytes."""
    dataset = pydicom.dcmread(io.BytesIO(slice_bytes()))
    block = dataset.private_block(0x0099, "HOSTILE \x1b[2J", create=True)
    block.add_new(0x01, "SQ", [Dataset()])
    block.add_new(0x02, "UN", bytes(size))
    block.add_new(0x03, "LO", "\\".join("x" * 60 for _ in range(100)))
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def wrong_letters() -> bytes:
    """Return a slice that says UTF-8 and has a name in Latin-1."""
    whole = slice_bytes(SpecificCharacterSet="ISO_IR 192", PatientName="MULLER^Jorg")
    return whole.replace(b"MULLER^Jorg", b"M\xdcLLER^J\xf6rg")


def png(cut: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (64, 64), 7).save(buffer, "PNG")
    return buffer.getvalue()[: -cut or None]


def jpeg(cut: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (64, 64), 7).save(buffer, "JPEG")
    return buffer.getvalue()[: -cut or None]


QUARANTINED: dict[str, tuple[str, Callable[[], bytes]]] = {
    "zero bytes": ("empty", lambda: b""),
    "cut inside the pixels": ("damaged", lambda: slice_bytes()[:-100]),
    "cut before the pixels": ("damaged", lambda: slice_bytes()[:700]),
    "cut inside the file meta": ("damaged", lambda: slice_bytes()[:150]),
    "deflate bomb": ("deflate_bomb", deflate_bomb),
    "huge dimensions": ("too_many_pixels", lambda: slice_bytes(Rows=65535, Columns=65535, NumberOfFrames="9999")),
    "unknown transfer syntax": (
        "transfer_syntax",
        lambda: slice_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.99999.9.9.9\0"),
    ),
    "PNG bomb": ("too_many_pixels", png_bomb),
    "half a PNG": ("damaged", lambda: png(cut=20)),
    "half a JPEG": ("damaged", lambda: jpeg(cut=10)),
    "text": ("not_an_image", lambda: b"MZ this is no scan" * 100),
    "two thousand nested sequences": ("damaged", lambda: nested(2000)),
    "a PNG with a text that unpacks to 512 MiB": ("damaged", png_text_bomb),
    "JPEG bomb": ("too_many_pixels", jpeg_bomb),
    "frames without end": ("too_many_pixels", lambda: slice_bytes(NumberOfFrames="2147483647")),
    "an index of a medium": ("dicomdir", index_of_media),
    "a sequence without end": ("damaged", lambda: before_pixels(element(0x0040A730, b"SQ", b"", 0xFFFFFFFF))),
    "an unknown value without end": ("damaged", lambda: before_pixels(element(0x00700001, b"UN", b"", 0xFFFFFFFF))),
    "a value of four gigabytes": (
        "damaged",
        lambda: slice_bytes()[:-8400] + element(0x00204000, b"UT", b"x", 0xFFFFFFF0),
    ),
}

STORED: dict[str, Callable[[], bytes]] = {
    "nested sequences": lambda: nested(100),
    "program in the preamble": lambda: b"MZ" + slice_bytes()[2:],
    "ELF in the preamble": lambda: b"\x7fELF" + slice_bytes()[4:],
    "private tags": lambda: private(100),
    "a private value of a megabyte": lambda: private(1 << 20),
    "letters of another character set": wrong_letters,
    "no preamble and no meta": lambda: without_meta(slice_bytes()),
    "path instead of UID": lambda: slice_bytes(StudyInstanceUID="../../etc/x", SOPInstanceUID="../../../tmp/y"),
    "empty UIDs": lambda: slice_bytes(StudyInstanceUID="", SeriesInstanceUID="", SOPInstanceUID=""),
    "unknown character set": lambda: slice_bytes(SpecificCharacterSet="ISO_IR 9999"),
    "HTML and control characters": lambda: slice_bytes(PatientName="<script>\x1b[31m\x07\u202e", PatientID="a\x00b\nc"),
    "garbage numbers": lambda: slice_bytes().replace(b"IS\x02\x001 ", b"IS\x02\x00x!"),
    "a PNG called DICOM": png,
    "a JPEG called DICOM": jpeg,
}
