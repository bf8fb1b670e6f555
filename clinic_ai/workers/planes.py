"""Reads from a DICOM header where its image, or each of its frames, lies in the patient.

Values are taken from the raw bytes: that is quicker than pydicom's decimals, and what a stranger wrote there is
either numbers that can be true or left out with a remark. Of the functional groups of an enhanced object only
position, orientation and pixel measures are looked at, and of no more than ``MAX_FRAMES`` frames.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator, Mapping
from operator import mul
from typing import BinaryIO, Literal, cast

from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import Tag

from clinic_ai.domain import Cosines, FramePlane, PlaneGeometry, Vector

MAX_FRAMES = 4096
"""Of an object with more frames none is placed: a heart in motion has two thousand, a diffusion series four."""
MAX_MM = 1e6
"""A kilometre; what lies beyond is no position in a scanner, and would spoil arithmetic."""
COSINE_TOLERANCE = 1e-3
"""How far cosines may be from orthonormal: three decimals, the coarsest that scanners write."""
DECIMALS = 6
"""Lengths are kept to a nanometre, so that a thousand frames stay small in the database."""
MAX_NESTED_BYTES = 4096
"""Longest functional group that is read; one with a position has 60 bytes."""

Placed = Literal["", "each", "not_said", "too_many"]

KEYWORDS = (
    "ImageType",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "GantryDetectorTilt",
    "FrameOfReferenceUID",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)
"""What has to be read of a header for ``read_plane``."""

_GROUPS = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
_TAGS = {keyword: int(Tag(keyword)) for keyword in (*KEYWORDS, *_GROUPS)}
Elements = Mapping[int, DataElement | RawDataElement]
_UID = re.compile(r"[0-9]+(\.[0-9]+)+")
_CODE = re.compile(r"[A-Z0-9 _]{1,16}")
_MAX_CODES = 8
_UNDEFINED = 0xFFFFFFFF
_ITEM, _END_OF_SEQUENCE = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)

# What pydicom raises on a sequence that is none: there is no common base. An OSError is also what it says at its end.
_UNREADABLE = (
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    EOFError,
    OSError,
    NotImplementedError,
    OverflowError,
    RecursionError,
    struct.error,
)


def read_plane(dataset: Dataset, source: BinaryIO, frames: int, remarks: list[str]) -> PlaneGeometry | None:
    """Return where the image lies, None if the header says nothing of it; what is wrong in it goes to ``remarks``.

    ``source`` is the file the data set was read from, for sequences that were passed over; it is left elsewhere.
    """
    top = _elements(dataset)
    if not any(tag in top for tag in _TAGS.values()):
        return None
    shared = next(_items(top, "SharedFunctionalGroupsSequence", source, remarks), {})
    placed, planes, first = _frames(top, source, frames, remarks)
    measures = _group(shared, "PixelMeasuresSequence") or _group(first, "PixelMeasuresSequence") or top
    spacing = _numbers(measures, "PixelSpacing", 2, remarks)
    thickness = _numbers(measures, "SliceThickness", 1, remarks)
    tilt = _numbers(top, "GantryDetectorTilt", 1, remarks)
    return PlaneGeometry(
        image_position_patient=_position(_group(shared, "PlanePositionSequence") or top, remarks),
        image_orientation_patient=_orientation(_group(shared, "PlaneOrientationSequence") or top, remarks),
        pixel_spacing=cast("tuple[float, float] | None", _positive(spacing, "PixelSpacing", remarks)),
        slice_thickness=next(iter(_positive(thickness, "SliceThickness", remarks) or ()), None),
        gantry_detector_tilt=tilt[0] if tilt and abs(tilt[0]) <= 90 else None,
        frame_of_reference_uid=next(filter(_UID.fullmatch, _texts(top, "FrameOfReferenceUID")), "")[:64],
        image_type=tuple(code for code in _texts(top, "ImageType") if _CODE.fullmatch(code))[:_MAX_CODES],
        frames=planes,
        frames_placed=placed,
    )


# ---------------------------------------------------------------- enhanced objects


def _frames(
    top: Elements, source: BinaryIO, frames: int, remarks: list[str]
) -> tuple[Placed, tuple[FramePlane, ...], Elements]:
    """Return whether each frame is placed, the planes, and the groups of the first frame."""
    if _TAGS["PerFrameFunctionalGroupsSequence"] not in top:
        return ("not_said" if frames > 1 else ""), (), {}
    if frames > MAX_FRAMES:
        remarks.append(f"It has {frames} frames; the positions of more than {MAX_FRAMES} are not read.")
        return "too_many", (), {}
    first: Elements = {}
    planes: list[FramePlane] = []
    wrong: list[str] = []
    for groups in _items(top, "PerFrameFunctionalGroupsSequence", source, remarks):
        first = first if planes else groups
        if len(planes) == frames:
            planes.append(FramePlane())  # one too many is enough to know
            break
        planes.append(
            FramePlane(
                image_position_patient=_position(_group(groups, "PlanePositionSequence"), wrong),
                image_orientation_patient=_orientation(_group(groups, "PlaneOrientationSequence"), wrong),
            )
        )
    remarks.extend(dict.fromkeys(wrong))  # each once, not for every frame
    if len(planes) != frames:
        remarks.append(f"It has {frames} frames, but says where they lie for another number of them.")
        return "not_said", (), first
    if not any(plane.image_position_patient for plane in planes):
        return ("not_said" if frames > 1 else ""), (), first
    return "each", tuple(planes), first


def _items(top: Elements, keyword: str, source: BinaryIO, remarks: list[str]) -> Iterator[Elements]:
    """Yield the items of a sequence of the object, read only so far as they are asked for and looked at."""
    element = top.get(_TAGS[keyword])
    try:
        if isinstance(element, RawDataElement):
            yield from map(_elements, _read_items(element, source))
        elif element is not None and element.VR == "SQ":
            yield from map(_elements, element.value)
    except _UNREADABLE:
        remarks.append(f"Its {keyword} could not be read.")


def _read_items(element: RawDataElement, source: BinaryIO) -> Iterator[Dataset]:
    end = element.value_tell + element.length
    here = element.value_tell
    while here + 8 <= end:
        source.seek(here)
        head = source.read(8)
        group, number, length = struct.unpack("<HHL" if element.is_little_endian else ">HHL", head)
        if (group, number) != _ITEM:
            if (group, number) != _END_OF_SEQUENCE:
                raise ValueError("no item where one should be")
            return
        yield read_dataset(
            source,
            element.is_implicit_VR,
            element.is_little_endian,
            None if length == _UNDEFINED else length,
            defer_size=MAX_NESTED_BYTES,
            specific_tags=[_TAGS[keyword] for keyword in _GROUPS],
            at_top_level=False,
        )
        here = source.tell() if length == _UNDEFINED else here + 8 + length


def _group(groups: Elements, keyword: str) -> Elements:
    """Return the one item of a functional group; nothing if it is not there or cannot be read."""
    element = groups.get(_TAGS[keyword])
    try:
        if isinstance(element, RawDataElement):
            element = convert_raw_data_element(element) if element.value is not None else None
        return _elements(element.value[0]) if element is not None else {}
    except _UNREADABLE:
        return {}


# ---------------------------------------------------------------- values


def _position(elements: Elements, remarks: list[str]) -> Vector | None:
    return cast("Vector | None", _numbers(elements, "ImagePositionPatient", 3, remarks))


def _orientation(elements: Elements, remarks: list[str]) -> Cosines | None:
    """Return six cosines if they are two directions at a right angle (PS3.3 C.7.6.2.1.1)."""
    found = _numbers(elements, "ImageOrientationPatient", 6, remarks, decimals=9)
    if found is None:
        return None
    row, column = found[:3], found[3:]
    off = (sum(map(mul, row, column)), math.hypot(*row) - 1, math.hypot(*column) - 1)
    if max(map(abs, off)) > COSINE_TOLERANCE:
        remarks.append("Its ImageOrientationPatient is not two directions at a right angle and was left out.")
        return None
    return cast("Cosines", found)


def _positive(values: tuple[float, ...] | None, keyword: str, remarks: list[str]) -> tuple[float, ...] | None:
    if values is not None and min(values) <= 0:
        remarks.append(f"Its {keyword} is not above zero and was left out.")
        return None
    return values


def _numbers(
    elements: Elements, keyword: str, count: int, remarks: list[str], *, decimals: int = DECIMALS
) -> tuple[float, ...] | None:
    """Return so many finite numbers below ``MAX_MM``; None if they are missing, or are not that, which is remarked."""
    texts = _texts(elements, keyword)
    if not any(texts):
        return None
    try:
        numbers = tuple(round(float(text), decimals) for text in texts)
    except ValueError:
        numbers = ()
    if len(numbers) != count or not all(abs(number) <= MAX_MM for number in numbers):
        remarks.append(f"Its {keyword} is not {count} finite number{'' if count == 1 else 's'} and was left out.")
        return None
    return numbers


def _texts(elements: Elements, keyword: str) -> list[str]:
    """Return the values as text; none if the element is missing, too long to have been read, or no text."""
    element = elements.get(_TAGS[keyword])
    if not isinstance(element, RawDataElement) or not isinstance(element.value, bytes):
        return []
    return [part.strip("\0 ") for part in element.value.decode("latin-1").split("\\")]


def _elements(dataset: Dataset) -> Elements:
    """Return the elements as they were read. To ask the data set for one would read what was passed over."""
    return {int(tag): element for tag, element in dataset.items()}
