"""What every DICOM object of a report shares: patient and study as the scanner wrote them, made valid."""

from __future__ import annotations

import datetime
import re
import time
import warnings

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from clinic_ai.domain import FileKind
from clinic_ai.ml.report_text import printable
from clinic_ai.ml.uids import derived_uid, is_uid
from clinic_ai.tasks import RenderTask

CHARACTER_SET = "ISO_IR 192"
MANUFACTURER = "clinic-ai"
_DATE = re.compile(r"\d{8}", re.ASCII)
_TIME = re.compile(r"([01]\d|2[0-3])([0-5]\d)?([0-5]\d(\.\d{1,6})?)?", re.ASCII)
_SHORT = re.compile(r"[^\\]{0,16}")
_STUDY_LEVEL = ("StudyTime", "StudyID", "ReferringPhysicianName")


def subject(task: RenderTask) -> tuple[Dataset, list[str]]:
    """Return patient and study attributes valid for their VRs, and in words what could not be carried over.

    A key such as the patient ID is never shortened, for a shortened key names somebody else: it stays empty.
    """
    who = task.identity
    lost: list[str] = []
    header = task.images[0].header if task.images else None
    result = Dataset()
    result.SpecificCharacterSet = CHARACTER_SET
    result.StudyInstanceUID = study_uid(task)
    result.PatientID = _key(who.patient_id, 64, "patient ID", lost)
    result.PatientName = name_value(who.patient_name)
    result.PatientBirthDate = date_value(who.birth_date)
    result.PatientSex = who.sex if who.sex in {"M", "F", "O"} else ""
    result.AccessionNumber = _key(who.accession_number, 16, "accession number", lost)
    result.StudyDate = date_value(header.study_date if header else "")
    source = _study_level(task)
    result.StudyTime = _only(_TIME, source["StudyTime"])
    result.StudyID = _only(_SHORT, source["StudyID"])
    result.ReferringPhysicianName = name_value(source["ReferringPhysicianName"])
    return result, lost


def _study_level(task: RenderTask) -> dict[str, str]:
    """Return what the first DICOM object says of its study beyond its parsed header; empty where it cannot be read.

    A PACS compares these among the objects of a study and complains when they differ.
    """
    found = dict.fromkeys(_STUDY_LEVEL, "")
    first = next((image for image in task.images if image.header.kind is FileKind.DICOM), None)
    if first is None:
        return found
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # oddities of the source are the parser's to report
            dataset = pydicom.dcmread(
                first.path, stop_before_pixels=True, force=True, specific_tags=["SpecificCharacterSet", *_STUDY_LEVEL]
            )
            for keyword in _STUDY_LEVEL:
                value = dataset.get(keyword)
                found[keyword] = "" if value is None else printable(str(value), 256)
    except (InvalidDicomError, OSError, EOFError, LookupError, ValueError, TypeError, AttributeError, RecursionError):
        return dict.fromkeys(_STUDY_LEVEL, "")
    return found


def _only(pattern: re.Pattern[str], text: str) -> str:
    return text if pattern.fullmatch(text) else ""


def study_uid(task: RenderTask) -> str:
    """Return the study's UID, or one of our own where the scanner gave none that is valid."""
    uid = task.study_instance_uid
    return uid if is_uid(uid) else derived_uid(task.study_id, 1, "study")


def name_value(name: str) -> str:
    """Return a valid person name (PN): at most 3 groups of 5 components, 64 characters each group."""
    groups = [[printable(part.replace("\\", " "), 1000) for part in group.split("^")] for group in name.split("=")]
    values = ["^".join(components[:5])[:64].rstrip("^ ") for components in groups[:3]]
    return "=".join(values).rstrip("=")


def date_value(text: str) -> str:
    """Return a valid date (DA), or nothing."""
    if _DATE.fullmatch(text) is None:
        return ""
    try:
        datetime.date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError:
        return ""
    return text


def short_text(text: str, limit: int) -> str:
    """Return text valid for SH or LO: one line, no backslash, at most ``limit`` characters."""
    return printable(text.replace("\\", "/"), 10_000)[:limit].rstrip()


def stamp(dataset: Dataset, task: RenderTask, description: str, *, at: float | None = None) -> None:
    """Set when and with what the object was made: ``at``, or when the software reported; not when it was rendered."""
    # Local time without an offset, as scanners write it: an offset here would speak for the study date too.
    moment = time.localtime(task.created_at if at is None else at)
    dataset.InstanceCreationDate = dataset.ContentDate = dataset.SeriesDate = time.strftime("%Y%m%d", moment)
    dataset.InstanceCreationTime = dataset.ContentTime = dataset.SeriesTime = time.strftime("%H%M%S", moment)
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = MANUFACTURER
    dataset.SoftwareVersions = short_text(task.software, 64)
    dataset.SeriesDescription = description
    # highdicom writes the moment of the call into it, and names us as the acquisition equipment.
    dataset.pop("ContributingEquipmentSequence", None)
    if task.institution.strip():
        dataset.InstitutionName = short_text(task.institution, 64)


def _key(value: str, limit: int, name: str, lost: list[str]) -> str:
    text = printable(value, 10_000)
    if len(text) > limit or "\\" in text:
        lost.append(f"The DICOM objects carry no {name}: the study's is not a valid one.")
        return ""
    return text
