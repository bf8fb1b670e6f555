"""Where images lie, from files made here, read by the real parser child."""

from __future__ import annotations

import itertools
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from scans import write_ct_slice

from clinic_ai.analyses import volumes_of
from clinic_ai.domain import Instance, PlaneGeometry
from clinic_ai.ingest.geometry import measure
from clinic_ai.ingest.geometry_words import line_of
from clinic_ai.ingest.headers import HeaderReader
from clinic_ai.ingest.stacks import stacks_of
from clinic_ai.processes import Crew
from clinic_ai.settings import IngestSettings

Read = Callable[..., list[Instance]]
AXIAL = [1, 0, 0, 0, 1, 0]
SEEDS = itertools.count(1)


@pytest.fixture(scope="module")
def read() -> Iterator[Read]:
    """Read files in one real child; the SHA-256 of each instance is its number among them."""
    crew = Crew()
    reader = HeaderReader(crew)

    def instances(*paths: Path) -> list[Instance]:
        found = reader.read(paths, IngestSettings())
        assert [file.problem for file in found] == [None] * len(paths)
        return [
            Instance(sha256=f"{number:064x}", size_bytes=1, header=file.header)
            for number, file in enumerate(found)
            if file.header is not None
        ]

    yield instances
    reader.close()
    crew.close()


def write(path: Path, *, instance: int = 1, **values: object) -> Path:
    """Write a CT slice of 8 × 8 pixels with these attributes as they are; bytes replace a value in the file."""
    write_ct_slice(path, seed=next(SEEDS), study="1.2.3", instance=instance, side=8)
    dataset = pydicom.dcmread(path)
    with pydicom.config.disable_value_validation():
        dataset.PixelSpacing = [0.5, 0.75]
        dataset.ImageOrientationPatient = AXIAL
        for keyword, value in values.items():
            setattr(dataset, keyword, value)
        dataset.save_as(path)
    return path


def lines(instances: list[Instance]) -> list[str]:
    return [line_of(measure(stack)) for stack in stacks_of(instances)]


def geometry_of(instance: Instance) -> PlaneGeometry:
    assert instance.header.geometry is not None
    return instance.header.geometry


# ---------------------------------------------------------------- slices in files of their own


def test_a_series_in_any_order_with_its_scout(tmp_path: Path, read: Read) -> None:
    paths = [
        write(tmp_path / f"{n}.dcm", instance=n, ImagePositionPatient=[-10, -20, 700.21 - 2.5 * n], SliceThickness=2.5)
        for n in range(1, 13)
    ]
    scout = write(
        tmp_path / "scout.dcm",
        ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
        ImagePositionPatient=[0, 0, 0],
        ImageOrientationPatient=[0, 1, 0, 0, 0, -1],
    )
    random.Random(3).shuffle(paths)

    instances = read(scout, *paths)

    assert lines(instances) == ["CT, scout, 1 image", "CT, 12 slices, axial, 2.5 mm apart, regular"]
    (volume,) = volumes_of(instances)
    assert volume.spacing == pytest.approx((2.5, 0.5, 0.75))
    assert volume.origin == (-10.0, -20.0, 670.21)
    assert volume.directions == ((0, 0, 1), (0, 1, 0), (1, 0, 0))
    numbers = {instance.sha256: instance.header.instance_number for instance in instances}
    assert [numbers[one.sha256] for one in volume.slices] == list(range(12, 0, -1))
    assert volume.reason == ""


def test_a_series_with_a_slice_missing_says_where(tmp_path: Path, read: Read) -> None:
    paths = [
        write(tmp_path / f"{n}.dcm", instance=n, ImagePositionPatient=[0, 0, 5 * n]) for n in range(1, 10) if n != 4
    ]
    instances = read(*paths)
    why = "gap of 10.0 mm after slice 3 (between images 3 and 5)"
    assert lines(instances) == [f"CT, 8 slices, axial, 5.0 mm apart, not regular: {why}"]
    (volume,) = volumes_of(instances)
    assert (volume.spacing, volume.reason) == (None, f"This is no regular volume: {why}.")


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("ImagePositionPatient", ["nan", "0", "0"]),
        ("ImagePositionPatient", ["0", "inf", "0"]),
        ("ImagePositionPatient", ["0", "1e999", "0"]),
        ("ImagePositionPatient", ["0", "1e12", "0"]),
        ("ImagePositionPatient", ["0", "0"]),
        ("ImagePositionPatient", ["0", "0", "0", "0"]),
        ("ImagePositionPatient", ["left", "0", "0"]),
        ("ImagePositionPatient", ["1", "", "0"]),
        ("ImageOrientationPatient", ["0"] * 6),
        ("ImageOrientationPatient", ["1", "0", "0", "1", "0", "0"]),
        ("ImageOrientationPatient", ["1", "0", "0", "0", "0.5", "0"]),
        ("ImageOrientationPatient", ["1", "0", "0", "0", "nan", "0"]),
        ("ImageOrientationPatient", ["1", "0", "0"]),
        ("PixelSpacing", ["0.5"]),
        ("PixelSpacing", ["0.5", "-0.5"]),
        ("PixelSpacing", ["0", "0"]),
        ("SliceThickness", ["-1"]),
    ],
)
def test_what_cannot_be_true_is_left_out_with_a_remark(
    tmp_path: Path, read: Read, keyword: str, value: list[str]
) -> None:
    path = write(tmp_path / "x.dcm", ImagePositionPatient=[1, 2, 3], SliceThickness=5)
    content, tag = path.read_bytes(), pydicom.tag.Tag(keyword)
    head = struct.pack("<HH", tag.group, tag.element) + b"DS"
    at = content.index(head)
    (length,) = struct.unpack_from("<H", content, at + 6)
    text = "\\".join(value).encode()
    text += b" " * (len(text) % 2)
    path.write_bytes(content[:at] + head + struct.pack("<H", len(text)) + text + content[at + 8 + length :])

    (instance,) = read(path)

    geometry = geometry_of(instance).model_dump()
    fields = {
        "image_position_patient": "ImagePositionPatient",
        "image_orientation_patient": "ImageOrientationPatient",
        "pixel_spacing": "PixelSpacing",
        "slice_thickness": "SliceThickness",
    }
    assert [name for name, field in fields.items() if (geometry[name] is None) == (field != keyword)] == []
    assert [keyword in remark for remark in instance.header.remarks] == [True]


def test_odd_types_and_references_are_left_out(tmp_path: Path, read: Read) -> None:
    path = write(
        tmp_path / "x.dcm",
        ImageType=["ORIGINAL", "Doe^John", "AXIAL"],
        FrameOfReferenceUID="../../x",
        GantryDetectorTilt="400",
    )
    geometry = geometry_of(read(path)[0])
    assert geometry.image_type == ("ORIGINAL", "AXIAL")
    assert (geometry.frame_of_reference_uid, geometry.gantry_detector_tilt) == ("", None)


# ---------------------------------------------------------------- enhanced objects


def groups(position: list[float] | None, **others: Dataset) -> Dataset:
    item = Dataset()
    if position is not None:
        plane = Dataset()
        plane.ImagePositionPatient = position
        item.PlanePositionSequence = [plane]
    for keyword, value in others.items():
        setattr(item, keyword, [value])
    return item


def shared() -> Dataset:
    orientation, measures = Dataset(), Dataset()
    orientation.ImageOrientationPatient = AXIAL
    measures.PixelSpacing = [0.5, 0.75]
    measures.SliceThickness = 2
    return groups(None, PlaneOrientationSequence=orientation, PixelMeasuresSequence=measures)


def enhanced(path: Path, heights: list[float], *, frames: int = 0, syntax: str = "", undefined: bool = False) -> Path:
    """Write an enhanced CT whose frames lie at these heights, in this order."""
    frames = frames or len(heights)
    write_ct_slice(path, seed=next(SEEDS), side=8)
    plain = pydicom.dcmread(path)
    plain.SOPClassUID = plain.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    plain.NumberOfFrames = frames
    plain.PixelData = plain.PixelData * frames
    plain.SharedFunctionalGroupsSequence = Sequence([shared()])
    plain.PerFrameFunctionalGroupsSequence = Sequence([groups([0, 0, height]) for height in heights])
    for sequence in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        plain[sequence].is_undefined_length = undefined
        for item in plain[sequence].value:
            item.is_undefined_length_sequence_item = undefined
    plain.file_meta.TransferSyntaxUID = syntax or ExplicitVRLittleEndian
    implicit, little = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
    copy = Dataset(plain)
    copy.file_meta = plain.file_meta
    if not little:
        copy["PixelData"].VR = "OW"
    pydicom.dcmwrite(path, copy, implicit_vr=implicit, little_endian=little, enforce_file_format=True)
    return path


@pytest.mark.parametrize("undefined", [False, True], ids=["lengths", "no lengths"])
@pytest.mark.parametrize(
    "syntax",
    [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian],
    ids=lambda syntax: syntax.keyword,
)
def test_frames_of_an_enhanced_object_are_placed(tmp_path: Path, read: Read, syntax: str, undefined: bool) -> None:
    heights = [2.0 * ((7 * n) % 60) for n in range(60)]  # 60 frames: too long a sequence to be read by the way
    (instance,) = read(enhanced(tmp_path / "x.dcm", heights, syntax=syntax, undefined=undefined))
    assert instance.header.remarks == ()
    assert geometry_of(instance).frames_placed == "each"
    assert lines([instance]) == ["CT, 60 slices in 1 file, axial, 2.0 mm apart, regular"]
    (volume,) = volumes_of([instance])
    assert [heights[one.frame] for one in volume.slices] == sorted(heights)
    assert volume.spacing == pytest.approx((2.0, 0.5, 0.75))


@pytest.mark.parametrize(("told", "frames"), [(3, 4), (5, 4)])
def test_places_for_another_number_of_frames_are_no_places(tmp_path: Path, read: Read, told: int, frames: int) -> None:
    (instance,) = read(enhanced(tmp_path / "x.dcm", [float(n) for n in range(told)], frames=frames))
    assert geometry_of(instance).frames_placed == "not_said"
    assert instance.header.remarks == ("It has 4 frames, but says where they lie for another number of them.",)
    assert lines([instance]) == ["CT, 4 images in 1 file, it is not known where each frame lies"]


def test_more_frames_than_are_read_are_said_to_be_too_many(tmp_path: Path, read: Read) -> None:
    (instance,) = read(enhanced(tmp_path / "x.dcm", [0.0], frames=5000))
    assert (geometry_of(instance).frames_placed, geometry_of(instance).frames) == ("too_many", ())
    assert instance.header.remarks == ("It has 5000 frames; the positions of more than 4096 are not read.",)


def test_groups_that_are_rubbish_cost_the_positions_and_nothing_else(tmp_path: Path, read: Read) -> None:
    path = enhanced(tmp_path / "x.dcm", [float(n) for n in range(100)])
    content = bytearray(path.read_bytes())
    at = content.index(struct.pack("<HH", 0x5200, 0x9230) + b"SQ") + 12
    content[at : at + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    (instance,) = read(path)
    assert geometry_of(instance).frames_placed == "not_said"
    assert "Its PerFrameFunctionalGroupsSequence could not be read." in instance.header.remarks


def test_frames_in_time_have_no_place(tmp_path: Path, read: Read) -> None:
    path = write(tmp_path / "x.dcm", ImagePositionPatient=[0, 0, 0])
    dataset = pydicom.dcmread(path)
    dataset.Modality, dataset.NumberOfFrames, dataset.PixelData = "US", 4, dataset.PixelData * 4
    dataset.save_as(path)
    (instance,) = read(path)
    assert geometry_of(instance).frames_placed == "not_said"
    assert lines([instance]) == ["US, 4 images in 1 file, it is not known where each frame lies"]
