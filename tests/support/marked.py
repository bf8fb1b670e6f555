"""DICOM images in which everything that could tell of a patient carries a mark, to be looked for in copies."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from clinic_ai.tasks import DeidentifiedFile, DeidentifyFile, DeidentifyTask
from clinic_ai.workers.deidentifier import deidentify

MARK = "Qx7leak"
NUMBER = "47K11"  # with a letter: digits alone come up by chance in the UID of a copy
"""Capital and small letters: no code string has both."""
ROOT = "1.2.999.77"
"""Every UID of the marked file begins with it."""
DAY = "201703"
"""Every date of the marked file lies in this month; none that was shifted can."""
KEY = "5a" * 32

_TEXTS = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
_NUMBERS = {"DS": "7.5", "IS": "7", "FD": 7.5, "FL": 7.5, "SL": 7, "SS": 7, "SV": 7, "UL": 7, "US": 7, "UV": 7}

VRS = (*sorted(_TEXTS), *_NUMBERS, "AS", "AT", "DA", "DT", "OB", "SQ", "TM", "UI", "UN")


def marked_value(vr: str, number: int) -> object:
    """Return a value of this VR that carries a mark; ``number`` makes it unlike others."""
    if vr in _TEXTS:
        return f"{MARK}{number}"[:16]
    if vr in {"OB", "OW", "OD", "OF", "OL", "OV", "UN"}:
        return (f"{MARK}{number:05d}" * 4).encode()[:48]
    match vr:
        case "UI":
            return f"{ROOT}.{number}"
        case "DA":
            return f"{DAY}{1 + number % 28:02d}"
        case "DT":
            return f"{DAY}{1 + number % 28:02d}101112.5+0100"
        case "TM":
            return f"{MARK}{number}"[:14]
        case "AS":
            return f"{MARK}"[:4]
        case "AT":
            return 0x00100010
        case _:
            return _NUMBERS[vr]


def image(**more: object) -> FileDataset:
    """Return a small CT image whose required values are all marked."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = f"{ROOT}.1"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.SourceApplicationEntityTitle = f"{MARK}AE"
    meta.PrivateInformationCreatorUID = f"{ROOT}.2"
    meta.PrivateInformation = MARK.encode() * 2
    ds = FileDataset("", {}, file_meta=meta, preamble=(MARK.encode() * 20)[:128])
    ds.SOPClassUID = CTImageStorage
    ds.SOPInstanceUID = f"{ROOT}.1"
    ds.StudyInstanceUID = f"{ROOT}.3"
    ds.SeriesInstanceUID = f"{ROOT}.4"
    ds.PatientName = f"{MARK}^Ada"
    ds.PatientID = f"{MARK}-{NUMBER}"
    ds.PatientBirthDate = f"{DAY}05"
    ds.StudyDate = f"{DAY}06"
    ds.Modality = "CT"
    ds.Rows, ds.Columns = 4, 6
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.PixelData = bytes(range(48))
    for keyword, value in more.items():
        setattr(ds, keyword, value)
    return ds


def put(dataset: Dataset, tag: int, vr: str, number: int, *, items: tuple[Dataset, ...] = ()) -> None:
    """Add an element with a marked value, whether or not it fits its tag."""
    value = Sequence(items) if vr == "SQ" else marked_value(vr, number)
    element = DataElement(Tag(tag), "OB" if vr == "UN" else vr, value)
    element.VR = vr  # of UN, pydicom makes what it knows better
    dataset[tag] = element


def write(dataset: FileDataset, path: Path) -> Path:
    """Write a file as it is, without a look at its values."""
    dataset.save_as(path, enforce_file_format=True)
    return path


def copy_of(
    path: Path, folder: Path, *, key: str = KEY, max_file_bytes: int = 1 << 26
) -> tuple[DeidentifiedFile, Path]:
    """De-identify a file in this process; return what is said of it and where its copy would be."""
    folder.mkdir(exist_ok=True)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    task = DeidentifyTask(
        files=(DeidentifyFile(path=str(path), sha256=sha256),),
        output_directory=str(folder),
        key=key,
        max_file_bytes=max_file_bytes,
    )
    (said,) = deidentify(task, None).files  # type: ignore[arg-type]
    return said, folder / sha256


def traces(content: bytes) -> list[str]:
    """Return which marks stand in raw bytes, in any usual encoding."""
    small = content.lower()
    marks = {
        f"{text} ({encoding})": text.lower().encode(encoding)
        for text in (MARK, ROOT, DAY, NUMBER)
        for encoding in ENCODINGS
    }
    return [name for name, mark in marks.items() if mark in small]


ENCODINGS = ("ascii", "utf-16-le", "utf-16-be", "utf-32-le")
