"""The child that reads the headers of new files, and dies instead of the daemon if one of them is hostile.

What a file is, its bytes say and not its name. Nothing is decoded, no DICOMDIR is followed, no value becomes
a path, and no text leaves without its control characters removed and its length capped.
"""

from __future__ import annotations

import io
import logging
import os
import struct
import warnings
import zlib
from typing import BinaryIO

from clinic_ai.confinement import confine

if __name__ == "__main__":  # the limits come before the libraries that read what strangers wrote
    CHANNEL, _ = confine()

import pydicom
from PIL import Image, UnidentifiedImageError
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID

from clinic_ai.domain import FileKind, InstanceHeader, PatientIdentity
from clinic_ai.errors import InputError
from clinic_ai.ml.dicom_errors import UNREADABLE
from clinic_ai.tasks import ParsedFile, ParseResult, ParseTask, Problem
from clinic_ai.wire import Call, Method, serve
from clinic_ai.workers import codes, planes
from clinic_ai.workers.after_pixels import LONG_VRS, junk_after_pixels
from clinic_ai.workers.digests import dataset_digest, pixel_digest
from clinic_ai.workers.values import (
    MAX_VALUE_BYTES,
    UID_FORM,
    announced_of,
    charset_remark,
    number_of,
    text_of,
    uid_of,
)

MAX_READ_BYTES = 32 << 20
"""Read in one piece at most; nothing we want of a header is nearly as long."""
MAX_INFLATED_BYTES = 512 << 20
"""A deflated object that unpacks to more than this is refused."""
_KEPT_INFLATED_BYTES = 32 << 20
_CHUNK = 1 << 20
_HEAD = 8 << 10
_TAIL = 64 << 10

_TEXTS = {
    # field of InstanceHeader: (DICOM keyword, longest text kept in characters)
    "transfer_syntax_uid": ("TransferSyntaxUID", 64),
    "modality": ("Modality", 16),
    "body_part": ("BodyPartExamined", 64),
    "view_position": ("ViewPosition", 64),
    "study_description": ("StudyDescription", 128),
    "series_description": ("SeriesDescription", 128),
    "view_name": ("ViewName", 64),
    "protocol_name": ("ProtocolName", 64),
    "study_date": ("StudyDate", 16),
    "station_name": ("StationName", 64),
    "manufacturer": ("Manufacturer", 64),
    "photometric": ("PhotometricInterpretation", 16),
    "burned_in_annotation": ("BurnedInAnnotation", 16),
    "requested_procedure_priority": ("RequestedProcedurePriority", 16),
    "study_priority_id": ("StudyPriorityID", 16),
}
_IDENTITY = {
    "patient_id": ("PatientID", 64),
    "patient_name": ("PatientName", 256),
    "birth_date": ("PatientBirthDate", 16),
    "sex": ("PatientSex", 16),
    "accession_number": ("AccessionNumber", 64),
}
_UIDS = {
    "sop_class_uid": "SOPClassUID",
    "sop_instance_uid": "SOPInstanceUID",
    "study_instance_uid": "StudyInstanceUID",
    "series_instance_uid": "SeriesInstanceUID",
}
_NUMBERS = ("SeriesNumber", "InstanceNumber", "Rows", "Columns", "NumberOfFrames", "BitsStored")
_PIXEL_LAYOUT = ("BitsAllocated", "SamplesPerPixel", "PixelRepresentation", "PlanarConfiguration")
_ANNOUNCED = {
    "images_in_acquisition": "ImagesInAcquisition",
    "number_of_study_related_instances": "NumberOfStudyRelatedInstances",
    "number_of_series_related_instances": "NumberOfSeriesRelatedInstances",
    "number_of_study_related_series": "NumberOfStudyRelatedSeries",
}
_CODES = frozenset(
    {
        "modality",
        "body_part",
        "view_position",
        "photometric",
        "burned_in_annotation",
        "requested_procedure_priority",
        "study_priority_id",
    }
)
_WANTED: list[BaseTag | int] = [
    Tag(keyword)
    for keyword in (
        *(keyword for keyword, _ in _TEXTS.values() if keyword != "TransferSyntaxUID"),
        *(keyword for keyword, _ in _IDENTITY.values()),
        *_UIDS.values(),
        *_NUMBERS,
        *_PIXEL_LAYOUT,
        *_ANNOUNCED.values(),
        "AcquisitionNumber",
        "Laterality",
        "ImageLaterality",
        *codes.KEYWORDS,
        *planes.KEYWORDS,
    )
]

_DICOMDIR = "1.2.840.10008.1.3.10"
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_NATIVE = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", _DEFLATED.decode(), _BIG_ENDIAN})
_COMPRESSED = frozenset(
    {
        "1.2.840.10008.1.2.1.98",  # encapsulated uncompressed
        "1.2.840.10008.1.2.5",  # RLE
        *(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70)),  # JPEG
        *(f"1.2.840.10008.1.2.4.{n}" for n in (80, 81)),  # JPEG-LS
        *(f"1.2.840.10008.1.2.4.{n}" for n in (90, 91, 92, 93)),  # JPEG 2000
        *(f"1.2.840.10008.1.2.4.{n}" for n in (201, 202, 203)),  # High-Throughput JPEG 2000
        *(f"1.2.840.10008.1.2.4.{n}" for n in range(100, 109)),  # MPEG-2, MPEG-4, HEVC
    }
)
_NOT_COMPARED = frozenset({_DEFLATED.decode(), _BIG_ENDIAN})
"""Deflated and big endian: the same pixels are other bytes there."""
_UNDEFINED = 0xFFFFFFFF
_PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_END_MARKS = {FileKind.PNG: b"IEND\xaeB`\x82", FileKind.JPEG: b"\xff\xd9"}

_NO_HEADER = "It begins like DICOM, but its header cannot be read."

pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
warnings.simplefilter("ignore")  # pydicom's warnings quote values, and these are of patients
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)  # so do its logs
Image.MAX_IMAGE_PIXELS = None  # our own cap says what a person can do


class _Bounded(io.BufferedReader):
    """A file that never allocates the four gigabytes a hostile length asks for; a short read is told as damage."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Return at most ``MAX_READ_BYTES``."""
        return super().read(MAX_READ_BYTES if size is None or size < 0 else min(size, MAX_READ_BYTES))


def parse(task: ParseTask, _call: Call) -> ParseResult:
    """Read the header of each file; one that is not usable gets its problem in words."""
    return ParseResult(files=tuple(_parse_one(path, task) for path in task.paths))


def _parse_one(path: str, task: ParseTask) -> ParsedFile:
    try:
        with _Bounded(io.FileIO(path)) as file:
            header = read_header(file, os.fstat(file.fileno()).st_size, task.max_pixels)
            pixels, dataset = _digests(file, header) if task.digest else (None, None)
    except InputError as error:
        refusal = error
    except OSError as error:
        refusal = _cut_off(_NO_HEADER) if error.errno is None else _not_read(error)  # without: pydicom's, of a sequence
    else:
        return ParsedFile(path=path, header=header, pixels=pixels, dataset=dataset)
    return ParsedFile(path=path, problem=Problem(code=refusal.code, sentence=refusal.message, remedy=refusal.remedy))


def _not_read(error: OSError) -> InputError:
    return InputError(
        "unreadable",
        f"The file could not be read: {error.strerror}.",
        remedy="Check the disk and the owner of the file, then drop it again.",
    )


def _digests(file: BinaryIO, header: InstanceHeader) -> tuple[str | None, str | None]:
    """Return the hashes of pixels and data set of a file whose header was read, None for what cannot be compared."""
    if header.kind is not FileKind.DICOM:
        return None, None
    try:
        dataset = dataset_digest(file, header.transfer_syntax_uid)
        if not header.rows or header.transfer_syntax_uid in _NOT_COMPARED:
            return None, dataset
        file.seek(0)
        return pixel_digest(file, _read(file)) or None, dataset
    except UNREADABLE:
        return None, None


def read_header(file: BinaryIO, size: int, max_pixels: int) -> InstanceHeader:
    """Return the header of an open file of ``size`` bytes. Raise InputError if it is not usable."""
    head = file.read(_HEAD)
    file.seek(0)
    if not head:
        raise InputError("empty", "The file is empty (0 bytes).", remedy="Send it again from where it came.")
    if head[128:132] == b"DICM":  # first: a preamble may hold the head of another format (PS3.10 7.1)
        header = _dicom(file, size, head, max_pixels)
    elif head.startswith(b"\x89PNG\r\n\x1a\n"):
        header = _image(file, FileKind.PNG)
    elif head.startswith(b"\xff\xd8\xff"):
        header = _image(file, FileKind.JPEG)
    elif _bare_dicom(head):
        header = _dicom(file, size, head, max_pixels)
    else:
        raise InputError(
            "not_an_image",
            "The file is neither DICOM nor PNG nor JPEG.",
            remedy="Nothing is needed if it does not belong here; otherwise export it again as DICOM, PNG or JPEG.",
        )
    _check_dimensions(header, max_pixels)
    return header


def _check_dimensions(header: InstanceHeader, max_pixels: int) -> None:
    if header.rows * header.columns * header.frames > max_pixels:
        raise InputError(
            "too_many_pixels",
            f"The header announces {header.rows} × {header.columns} pixels in {header.frames} frames, "
            f"more than the {max_pixels} this appliance takes.",
            remedy="If the image is real, raise ingest.max_pixels in clinic.toml and drop it again.",
        )


# ---------------------------------------------------------------- PNG and JPEG


def _image(file: BinaryIO, kind: FileKind) -> InstanceHeader:
    try:
        with Image.open(file, formats=[kind.name]) as image:
            columns, rows, mode = image.width, image.height, image.mode
            if kind is FileKind.PNG:
                image.verify()  # check sums of all chunks; decodes nothing
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise _cut_off(f"The {kind.name} file is damaged or ends too early.") from error
    if _END_MARKS[kind] not in _tail(file):
        raise _cut_off(f"The {kind.name} file ends before its end mark.")
    grey = mode in {"1", "L", "I", "I;16", "I;16B", "I;16L", "F"}
    return InstanceHeader(
        kind=kind,
        rows=rows,
        columns=columns,
        frames=1,
        bits_stored=1 if mode == "1" else 16 if mode.startswith("I") else 8,
        photometric="MONOCHROME2" if grey else "PALETTE COLOR" if mode == "P" else "RGB",
    )


def _tail(file: BinaryIO) -> bytes:
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - _TAIL))
    return file.read(_TAIL)


# ---------------------------------------------------------------- DICOM


def _bare_dicom(head: bytes) -> bool:
    """Return whether this begins like a data set without preamble: group 0002 or 0008, a low element."""
    if len(head) < 8:
        return False
    little, big = struct.unpack_from("<HH", head), struct.unpack_from(">HH", head)
    return any(group in {2, 8} and element <= 0x18 for group, element in (little, big))


def _dicom(file: BinaryIO, size: int, head: bytes, max_pixels: int) -> InstanceHeader:
    remarks: list[str] = []
    if head[128:132] != b"DICM":
        remarks.append("It has no DICOM preamble.")
    elif head.startswith((b"MZ", b"\x7fELF", b"#!")):
        remarks.append("The 128 bytes before its DICOM header look like a program; nothing here runs them.")
    try:
        dataset, source, size = _read_inflated(file) if _DEFLATED in head else (_read(file), file, size)
        meta = dataset.file_meta
        cut = any(map(_is_cut, (*meta.values(), *dataset.values())))  # before any value is looked at
        dicomdir = _DICOMDIR in {text_of(meta, "MediaStorageSOPClassUID", 64), text_of(dataset, "SOPClassUID", 64)}
    except UNREADABLE as error:
        raise _cut_off(_NO_HEADER) from error
    if cut:
        raise _cut_off("The file ends inside its DICOM header.")
    if dicomdir:
        raise InputError(
            "dicomdir",
            "It is a DICOMDIR, a list of contents of a disc; such lists are never followed.",
            remedy="Copy the image files of the disc into the inbox; they are found without the list.",
        )
    header = _header(dataset, meta, remarks)
    _check_transfer_syntax(header.transfer_syntax_uid)
    _check_dimensions(header, max_pixels)
    _check_pixels(source, size, dataset, header)
    geometry = planes.read_plane(dataset, source, header.frames, remarks) if header.frames else None
    return header.model_copy(update={"geometry": geometry, "remarks": tuple(remarks)})


def _header(dataset: Dataset, meta: Dataset, remarks: list[str]) -> InstanceHeader:
    if (charset := charset_remark(dataset)) is not None:
        remarks.append(charset)
    texts = {field: text_of(dataset, keyword, cap, remarks) for field, (keyword, cap) in _TEXTS.items()}
    texts["transfer_syntax_uid"] = text_of(meta, "TransferSyntaxUID", 64)
    for field in _CODES:
        texts[field] = texts[field].upper()
    uids = {field: uid_of(dataset, keyword, remarks) for field, keyword in _UIDS.items()}
    uids["sop_class_uid"] = uids["sop_class_uid"] or uid_of(meta, "MediaStorageSOPClassUID", [])
    if not uids["sop_class_uid"] and not texts["modality"]:
        raise _cut_off("It begins like DICOM, but says neither what kind of object it is nor of which modality.")
    if not texts["transfer_syntax_uid"]:
        remarks.append("It does not name its transfer syntax; it was guessed.")
    numbers = {keyword: number_of(dataset, keyword) for keyword in _NUMBERS}
    rows, columns = numbers["Rows"] or 0, numbers["Columns"] or 0
    has_pixels = rows > 0 and columns > 0
    frames = numbers["NumberOfFrames"]
    values: dict[str, object] = {
        **texts,
        **uids,
        "kind": FileKind.DICOM,
        "sop_class_name": UID(uids["sop_class_uid"]).name if uids["sop_class_uid"] else "",
        "laterality": (text_of(dataset, "ImageLaterality", 16) or text_of(dataset, "Laterality", 16)).upper(),
        **{field: announced_of(dataset, keyword) for field, keyword in _ANNOUNCED.items()},
        "view_codes": codes.codes_of(dataset, codes.VIEW, remarks),
        "anatomy_codes": codes.codes_of(dataset, codes.ANATOMY, remarks),
        "acquisition_number": number_of(dataset, "AcquisitionNumber"),
        "series_number": numbers["SeriesNumber"],
        "instance_number": numbers["InstanceNumber"],
        "rows": rows if has_pixels else 0,
        "columns": columns if has_pixels else 0,
        "frames": max(1 if frames is None else frames, 1) if has_pixels else 0,
        "bits_stored": numbers["BitsStored"] or 0,
        "identity": PatientIdentity(**{f: text_of(dataset, keyword, cap) for f, (keyword, cap) in _IDENTITY.items()}),
        "remarks": tuple(remarks),
    }
    return InstanceHeader.model_validate(values)


def _check_transfer_syntax(uid: str) -> None:
    if uid and uid not in _NATIVE and uid not in _COMPRESSED:
        known = UID(uid).name if UID_FORM.fullmatch(uid) else "not a UID"
        raise InputError(
            "transfer_syntax",
            f"Its transfer syntax ({known}) is not one this appliance takes.",
            remedy="Let the sender export it as Explicit VR Little Endian, then drop it again.",
        )


def _check_pixels(source: BinaryIO, size: int, dataset: Dataset, header: InstanceHeader) -> None:
    """Raise InputError if the object ends before its pixels do, or long after; ``source`` stands where they begin."""
    here = source.tell()
    if here > size:
        raise _cut_off("The file ends inside its DICOM header.")
    if not header.rows:
        if header.sop_class_name.endswith("Image Storage"):
            raise _cut_off("It is an image by its kind, but its header has no rows and columns.")
        return
    start = source.read(12)
    if len(start) < 8:
        raise _cut_off("It is an image by its header, but the file ends before the pixels.")
    if header.transfer_syntax_uid in _NATIVE:  # how long compressed pixels should be, only decoding tells
        expected = _bytes_of_pixels(dataset, header)
        left = size - here - (12 if start[4:6] in LONG_VRS else 8)
        if left < expected:
            raise _cut_off(f"The file ends inside the image: {left} of {expected} bytes of pixels are there.")
    if header.transfer_syntax_uid != _BIG_ENDIAN:
        source.seek(here)
        junk = junk_after_pixels(source, size, implicit_vr=bool(dataset.original_encoding[0]))
        if junk:
            raise _cut_off(f"After the image of the file come {junk} bytes that are no DICOM.")


def _bytes_of_pixels(dataset: Dataset, header: InstanceHeader) -> int:
    bits, samples = number_of(dataset, "BitsAllocated") or 0, number_of(dataset, "SamplesPerPixel") or 1
    expected = header.rows * header.columns * header.frames * samples * bits // 8
    return expected * 2 // 3 if header.photometric == "YBR_FULL_422" else expected


def _is_cut(element: object) -> bool:
    """Return whether fewer bytes of a value were there than it announces; values over the cap were not read."""
    return (
        isinstance(element, RawDataElement)
        and element.length != _UNDEFINED
        and element.value is not None
        and len(element.value) < element.length
    )


def _read(file: BinaryIO) -> Dataset:
    return pydicom.dcmread(file, stop_before_pixels=True, specific_tags=_WANTED, defer_size=MAX_VALUE_BYTES, force=True)


def _read_inflated(file: BinaryIO) -> tuple[Dataset, BinaryIO, int]:
    """Read a deflated object; return it, the unpacked bytes as far as a header may reach, and the size unpacked.

    pydicom would unpack it in one piece whatever its size. Raise InputError if it is a bomb.
    """
    file.seek(132)
    meta = FileMetaDataset(
        read_dataset(file, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, *_: tag >> 16 != 2)
    )
    kept, size = io.BytesIO(), 0
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        while piece := unpacker.decompress(unpacker.unconsumed_tail or file.read(_CHUNK), _CHUNK):
            size += len(piece)
            if size <= _KEPT_INFLATED_BYTES:
                kept.write(piece)
            if size > MAX_INFLATED_BYTES:
                raise InputError(
                    "deflate_bomb",
                    f"It is compressed and unpacks to more than {MAX_INFLATED_BYTES >> 20} MiB.",
                    remedy="If the image is real, let the sender export it without compression.",
                )
    except zlib.error as error:
        raise _cut_off("It begins like DICOM, but its compressed part cannot be unpacked.") from error
    kept.seek(0)
    dataset = read_dataset(
        kept,
        is_implicit_VR=False,
        is_little_endian=True,
        stop_when=lambda tag, *_: tag in _PIXELS,
        defer_size=MAX_VALUE_BYTES,
        specific_tags=_WANTED,
    )
    whole = FileDataset(kept, dataset, file_meta=meta, is_implicit_VR=False, is_little_endian=True)
    return whole, kept, size


def _cut_off(sentence: str) -> InputError:
    return InputError("damaged", sentence, remedy="Send it again from where it came; the copy here is kept as it is.")


METHODS = {"parse": Method(params=ParseTask, function=parse)}

if __name__ == "__main__":
    serve(CHANNEL, METHODS)
