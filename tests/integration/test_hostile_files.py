"""Files that mean harm, each made here: quarantined with a reason or filed rightly, and the next good one is filed."""

from __future__ import annotations

import io
import itertools
import os
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
import pytest
from intake_site import Site
from PIL import Image
from pydicom.uid import DeflatedExplicitVRLittleEndian
from scans import write_ct_slice

from clinic_ai.domain import Fate
from clinic_ai.store import studies

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
    "a value of four gigabytes": (
        "damaged",
        lambda: slice_bytes()[:-8400] + element(0x00204000, b"UT", b"x", 0xFFFFFFF0),
    ),
}

STORED: dict[str, Callable[[], bytes]] = {
    "nested sequences": lambda: nested(100),
    "program in the preamble": lambda: b"MZ" + slice_bytes()[2:],
    "no preamble and no meta": lambda: without_meta(slice_bytes()),
    "path instead of UID": lambda: slice_bytes(StudyInstanceUID="../../etc/x", SOPInstanceUID="../../../tmp/y"),
    "empty UIDs": lambda: slice_bytes(StudyInstanceUID="", SeriesInstanceUID="", SOPInstanceUID=""),
    "unknown character set": lambda: slice_bytes(SpecificCharacterSet="ISO_IR 9999"),
    "HTML and control characters": lambda: slice_bytes(PatientName="<script>\x1b[31m\x07\u202e", PatientID="a\x00b\nc"),
    "garbage numbers": lambda: slice_bytes().replace(b"IS\x02\x001 ", b"IS\x02\x00x!"),
    "a PNG called DICOM": png,
    "a JPEG called DICOM": jpeg,
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("hostile") / "h")
    yield site
    site.close()


def drop(site: Site, name: str, content: bytes) -> str:
    """Drop a file in a folder of its own, then a good one; return the fate's name and check the good one."""
    folder = site.home.inbox / name
    folder.mkdir(parents=True)
    (folder / "x.dcm").write_bytes(content)
    site.cycle_until(lambda: any(row.name == f"{name}/x.dcm" for row in site.files()))
    return next(row for row in site.files() if row.name == f"{name}/x.dcm").fate


@pytest.mark.parametrize("name", list(QUARANTINED))
def test_is_quarantined_with_its_reason(site: Site, name: str) -> None:
    code, content = QUARANTINED[name]
    assert drop(site, name, content()) is Fate.QUARANTINED
    row = next(row for row in site.files() if row.name == f"{name}/x.dcm")
    assert row.reason_code == code
    assert (site.home.quarantine / next(site.home.quarantine.glob(f"*-{row.file_id}")) / "file").exists()


@pytest.mark.parametrize("name", list(STORED))
def test_is_survived_and_filed(site: Site, name: str) -> None:
    assert drop(site, name, STORED[name]()) is Fate.STORED
    row = next(row for row in site.files() if row.name == f"{name}/x.dcm")
    with site.database.read() as connection:
        study = studies.get_study(connection, row.study_id or "")
        (instance,) = [
            i for i in studies.instances_of(connection, study.study_id, study.version) if i.sha256 == row.sha256
        ]
    words = instance.model_dump_json()
    assert all(text.isprintable() for text in [study.identity.patient_name, study.identity.patient_id])
    assert ".." not in instance.header.study_instance_uid + instance.header.sop_instance_uid
    assert "\\u0000" not in words


def test_what_is_odd_is_told_in_remarks(site: Site) -> None:
    folder = site.home.inbox / "remarks"
    folder.mkdir()
    (folder / "x.dcm").write_bytes(b"MZ" + slice_bytes(StudyInstanceUID="../x", SpecificCharacterSet="nonsense")[2:])
    site.cycle_until(lambda: any(row.name == "remarks/x.dcm" for row in site.files()))
    row = next(row for row in site.files() if row.name == "remarks/x.dcm")
    with site.database.read() as connection:
        study = studies.get_study(connection, row.study_id or "")
        (instance,) = studies.instances_of(connection, study.study_id, study.version)
    remarks = " ".join(instance.header.remarks)
    assert "look like a program" in remarks
    assert "StudyInstanceUID is not a UID" in remarks
    assert "character set" in remarks
    assert study.study_instance_uid.startswith("2.25.")


def test_links_pipes_and_odd_names(site: Site) -> None:
    folder = site.home.inbox / "odd"
    (folder / "folder.dcm").mkdir(parents=True)
    (folder / "folder.dcm" / "inner").write_bytes(slice_bytes(SOPInstanceUID="1.2.99", StudyInstanceUID="1.2.98"))
    os.symlink("/etc/passwd", folder / "link.dcm")
    os.mkfifo(folder / "pipe.dcm")
    for raw in (b"new\nline.dcm", b"\xff\xfe.dcm", b"y" * 255):
        with open(os.path.join(os.fsencode(folder), raw), "wb") as file:
            file.write(b"no scan")
    site.cycle_until(lambda: sum(row.name.startswith("odd/") for row in site.files()) == 6)
    fates = {row.name: (row.fate, row.reason_code) for row in site.files() if row.name.startswith("odd/")}
    assert fates == {
        "odd/folder.dcm/inner": (Fate.STORED, ""),
        "odd/link.dcm": (Fate.IGNORED, "link"),
        "odd/pipe.dcm": (Fate.IGNORED, "special"),
        "odd/new\\nline.dcm": (Fate.QUARANTINED, "not_an_image"),
        "odd/\\xff\\xfe.dcm": (Fate.QUARANTINED, "not_an_image"),
        f"odd/{'y' * 255}": (Fate.QUARANTINED, "not_an_image"),
    }
    before = len(site.files())
    site.intake.cycle()
    assert len(site.files()) == before
    assert Path("/etc/passwd").exists()


def test_a_file_that_eats_the_parsers_memory_costs_only_itself(tmp_path: Path) -> None:
    site = Site(tmp_path / "h", parser_memory_mb=256)
    content = png()
    with (site.home.inbox / "greedy.png").open("wb") as file:  # sparse: a text chunk of 400 MiB of zeros
        file.write(content[:33] + struct.pack(">L", 400 << 20) + b"tEXt")
        file.truncate(450 << 20)
    for number in range(5):
        write_ct_slice(site.home.inbox / f"good{number}.dcm", seed=number)
    try:
        files = site.settle(6)
        assert files["greedy.png"].reason_code == "parser_killed"
        assert site.fates() == {Fate.STORED: 5, Fate.QUARANTINED: 1}
    finally:
        site.close()


def test_a_value_longer_than_any_should_be_is_not_read(site: Site) -> None:
    assert drop(site, "long value", slice_bytes(StudyDescription="D" * 60_000)) is Fate.STORED
    row = next(row for row in site.files() if row.name == "long value/x.dcm")
    with site.database.read() as connection:
        study = studies.get_study(connection, row.study_id or "")
        (instance,) = studies.instances_of(connection, study.study_id, study.version)
    assert instance.header.study_description == ""
