"""The parser child under damage of every kind: it answers in words and lives on."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless
from scans import write_ct_slice

from clinic_ai.confinement import Confinement
from clinic_ai.processes import Child, ChildSpec, Crew
from clinic_ai.tasks import ParsedFile, ParseResult, ParseTask

CODES = {"empty", "damaged", "not_an_image", "transfer_syntax", "too_many_pixels", "dicomdir", "deflate_bomb"}


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    crew = Crew()
    limits = Confinement(address_space=1 << 30, file_size=1)
    yield crew.start(ChildSpec("parser", "parser", limits, environment=(("OPENBLAS_NUM_THREADS", "1"),)))
    crew.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parser")


def picture(form: str) -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((16, 16)).save(buffer, form)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def originals(place: Path) -> dict[str, bytes]:
    write_ct_slice(place / "slice", seed=1, side=16)
    return {"dicom": (place / "slice").read_bytes(), "png": picture("PNG"), "jpeg": picture("JPEG")}


def parse(child: Child, path: Path, content: bytes) -> ParsedFile:
    path.write_bytes(content)
    return child.call("parse", ParseTask(paths=(str(path),)), ParseResult, timeout_s=20).files[0]


def test_reads_what_the_header_says(child: Child, place: Path, originals: dict[str, bytes]) -> None:
    header = parse(child, place / "x", originals["dicom"]).header
    assert header is not None
    assert (header.modality, header.body_part, header.rows, header.columns, header.frames) == ("CT", "KNEE", 16, 16, 1)
    assert (header.sop_class_name, header.transfer_syntax_uid) == ("CT Image Storage", "1.2.840.10008.1.2.1")
    assert (header.identity.patient_id, header.identity.patient_name) == ("PH-0001", "PHANTOM^Number 1")
    assert (header.series_number, header.instance_number, header.bits_stored) == (1, 1, 16)
    assert header.remarks == ()


def test_reads_how_much_there_is_in_all_and_how_urgent_it_is(
    child: Child, place: Path, originals: dict[str, bytes]
) -> None:
    dataset = pydicom.dcmread(io.BytesIO(originals["dicom"]))
    dataset.NumberOfStudyRelatedInstances = 120
    dataset.NumberOfSeriesRelatedInstances = 40
    dataset.NumberOfStudyRelatedSeries = 3
    dataset.ImagesInAcquisition = 20
    dataset.AcquisitionNumber = 2
    dataset.RequestedProcedurePriority = "stat "
    dataset.StudyPriorityID = "HIGH"
    header = parse(child, place / "x", as_bytes(dataset)).header
    assert header is not None
    assert (header.number_of_study_related_instances, header.number_of_series_related_instances) == (120, 40)
    assert (header.number_of_study_related_series, header.images_in_acquisition) == (3, 20)
    assert (header.acquisition_number, header.requested_procedure_priority) == (2, "STAT")
    assert header.study_priority_id == "HIGH"
    assert header.remarks == ()


@pytest.mark.parametrize("value", ["0", "-3", "1000000000", "12 or so", "", "9" * 64])
def test_a_number_of_instances_that_cannot_be_true_is_not_told(
    child: Child, place: Path, originals: dict[str, bytes], value: str
) -> None:
    dataset = pydicom.dcmread(io.BytesIO(originals["dicom"]))
    dataset.add_new(0x00201208, "LO", value)
    header = parse(child, place / "x", as_bytes(dataset)).header
    assert header is not None
    assert header.number_of_study_related_instances is None


def as_bytes(dataset: pydicom.Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("start", [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"II*\0"])
def test_a_preamble_may_hold_the_head_of_another_format(
    child: Child, place: Path, originals: dict[str, bytes], start: bytes
) -> None:
    header = parse(child, place / "x", start.ljust(128, b"\0") + originals["dicom"][128:]).header
    assert header is not None
    assert header.kind == "dicom"


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_reads_what_a_picture_is(child: Child, place: Path, originals: dict[str, bytes], kind: str) -> None:
    header = parse(child, place / "x", originals[kind]).header
    assert header is not None
    assert (header.kind, header.rows, header.columns, header.frames) == (kind, 16, 16, 1)
    assert (header.photometric, header.bits_stored) == ("MONOCHROME2", 8)


@pytest.mark.parametrize("kind", ["dicom", "png", "jpeg"])
def test_cut_at_any_byte_is_never_taken_for_whole(
    child: Child, place: Path, originals: dict[str, bytes], kind: str
) -> None:
    whole = originals[kind]
    for length in range(len(whole) - 1):
        problem = parse(child, place / "x", whole[:length]).problem
        assert problem is not None, f"{kind} cut at byte {length} of {len(whole)} was taken"
        assert problem.code in CODES


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(
    kind=st.sampled_from(["dicom", "png", "jpeg"]),
    changes=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), min_size=1, max_size=20),
)
@example(kind="dicom", changes=[(132, 255)])
def test_changed_bytes_are_survived(
    child: Child, place: Path, originals: dict[str, bytes], kind: str, changes: list[tuple[int, int]]
) -> None:
    content = bytearray(originals[kind])
    for at, value in changes:
        content[at % len(content)] = value
    answer = parse(child, place / "x", bytes(content))
    assert (answer.header is None) != (answer.problem is None)
    assert answer.problem is None or answer.problem.code in CODES
    assert child.alive


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
@given(st.binary(max_size=300), st.sampled_from([b"", bytes(128) + b"DICM", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"]))
def test_rubbish_is_never_an_image(child: Child, place: Path, rubbish: bytes, start: bytes) -> None:
    answer = parse(child, place / "x", start + rubbish)
    assert answer.problem is not None or start
    assert child.alive


# ---------------------------------------------------------------- what follows the pixels


def element(tag: int, vr: bytes, value: bytes) -> bytes:
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr
    return head + (struct.pack("<HI", 0, len(value)) if vr in {b"OB", b"OW"} else struct.pack("<H", len(value))) + value


RAW_DATA = element(0x7FE10010, b"LO", b"GEMS_Ultrasound_1 ") + element(0x7FE11001, b"OB", bytes(1 << 20))
PADDING = element(0xFFFCFFFC, b"OB", bytes(256 << 10))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless])
@pytest.mark.parametrize(
    ("tail", "usable"),
    [
        (bytes(60_000), True),
        (bytes(20 << 20), False),
        (b"\x7f" * (1 << 20), False),
        (RAW_DATA + PADDING, True),
        (RAW_DATA + PADDING[:-1000], False),
        (PADDING + RAW_DATA, False),
        (b"".join(element(0x7FE10100 + n, b"OB", bytes(90)) for n in range(20_000)), False),
    ],
    ids=["a block of zeros", "zeros", "junk", "elements", "cut elements", "falling tags", "countless elements"],
)
def test_only_elements_follow_the_pixels(
    child: Child, place: Path, originals: dict[str, bytes], syntax: UID, tail: bytes, usable: bool
) -> None:
    if syntax == ImplicitVRLittleEndian and b"OB" in tail:
        tail = tail.replace(b"OB\0\0", b"").replace(b"LO\x12\0", b"\x12\0\0\0")  # the same without their VR
    dataset = pydicom.dcmread(io.BytesIO(originals["dicom"]))
    if syntax == RLELossless:
        dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.file_meta.TransferSyntaxUID = syntax
    buffer = io.BytesIO()
    dataset.save_as(buffer, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)
    parsed = parse(child, place / "x", buffer.getvalue() + tail)
    assert (parsed.header is not None) == usable
    if parsed.problem is not None:
        assert "After the image of the file come" in parsed.problem.sentence


@pytest.mark.parametrize(("tail", "usable"), [(bytes(100), True), (PADDING, True), (bytes(256 << 20), False)])
def test_only_elements_follow_the_pixels_of_a_deflated_object(
    child: Child, place: Path, originals: dict[str, bytes], tail: bytes, usable: bool
) -> None:
    dataset = pydicom.dcmread(io.BytesIO(originals["dicom"]))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset)
    whole = buffer.getvalue()
    buffer = io.BytesIO(whole)
    pydicom.filereader.read_preamble(buffer, force=False)
    pydicom.filereader._read_file_meta_info(buffer)
    start = buffer.tell()
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    unpacked = zlib.decompress(whole[start:], -zlib.MAX_WBITS)
    packed = packer.compress(unpacked + tail) + packer.flush()
    parsed = parse(child, place / "x", whole[:start] + packed)
    assert (parsed.header is not None) == usable
