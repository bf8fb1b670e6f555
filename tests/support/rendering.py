"""What tests of the renderer render, and how they read back what it made."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from pypdf import PdfReader

from clinic_ai.domain import (
    Audience,
    FileKind,
    Finding,
    GuardAction,
    GuardVerdict,
    InstanceHeader,
    ModelRef,
    PatientIdentity,
    Presence,
    Released,
    StudyFacts,
    ValidationFigures,
)
from clinic_ai.tasks import RenderImage, RenderResult, RenderTask

POLICY = "b" * 64
STUDY_UID = "1.2.826.0.1.3680043.8.498.1"
MARK = "Reference model, not for clinical use."
FIGURES = ValidationFigures(
    dataset="d",
    positives=5,
    negatives=9,
    auroc=0.91,
    auroc_low=0.86,
    auroc_high=0.94,
    sensitivity=0.8,
    sensitivity_low=0.71,
    sensitivity_high=0.87,
    specificity=0.9,
)
MODEL = ModelRef(plugin="xray", name="mobilenet", version="1.0", digest="c" * 64)


def task(directory: Path, images: tuple[RenderImage, ...], **changes: object) -> RenderTask:
    values: dict[str, object] = {
        "study_id": "S-20260101-AAAAAAAA",
        "version": 1,
        "study_instance_uid": STUDY_UID,
        "closed_reason": "No image came for 30 s.",
        "source": "xray",
        "facts": StudyFacts(source="xray", modalities=("DX",), body_parts=("CHEST",), slices=len(images)),
        "identity": PatientIdentity(patient_id="P-1", patient_name="Doe^Jane", birth_date="19700131", sex="F"),
        "received_at": 1_700_000_000.0,
        "created_at": 1_700_000_060.0,
        "images": images,
        "findings": (),
        "verdict": verdict(),
        "models": (MODEL,),
        "plugin_labels": ("xray 0.1.0",),
        "institution": "Example Clinic",
        "language": "en",
        "output_directory": str(directory),
        "software": "clinic-ai 0.1.0",
    }
    return RenderTask.model_validate(values | changes)


def verdict(*released: tuple[str, str], annotations: tuple[str, ...] = (), **changes: object) -> GuardVerdict:
    said = tuple(
        Released(statement_id=key, audience="clinician", text=text, annotations=annotations, policy_hash=POLICY)
        for key, text in released
    )
    values: dict[str, object] = {
        "audience": Audience.CLINICIAN,
        "action": GuardAction.ALLOW,
        "decisions": (),
        "released": said,
        "marks": (MARK,),
        "policy_hash": POLICY,
        "policy_name": "default",
    }
    return GuardVerdict.model_validate(values | changes)


def finding(image: RenderImage, condition: str = "pneumonia", probability: float = 0.83, **more: object) -> Finding:
    values: dict[str, object] = {
        "condition": condition,
        "label": "UNGUARDED LABEL",
        "probability": probability,
        "threshold": 0.42,
        "presence": Presence.PRESENT,
        "instance_sha256": image.sha256,
        "validation": FIGURES,
        "model": "main",
    }
    return Finding.model_validate(values | more)


def phantom(rows: int = 96, columns: int = 80) -> np.ndarray:
    """Two dark ellipses in a bright body, uint8 (rows, columns)."""
    y, x = np.mgrid[0:rows, 0:columns]
    y, x = y / rows - 0.5, abs(x / columns - 0.5)
    lungs = ((y / 0.35) ** 2 + ((x - 0.2) / 0.15) ** 2) < 1
    return np.where(lungs, 60, 190).astype(np.uint8)


def image_at(path: Path, header: InstanceHeader, **more: object) -> RenderImage:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return RenderImage.model_validate({"path": str(path), "sha256": digest, "header": header} | more)


def header_of(path: Path) -> InstanceHeader:
    """Return the header as a parser would, for files that pydicom can read."""
    dataset = pydicom.dcmread(path, force=True, stop_before_pixels=True)

    def text(keyword: str) -> str:
        value = dataset.get(keyword)
        return "" if value is None else str(value)

    return InstanceHeader(
        kind=FileKind.DICOM,
        sop_class_uid=text("SOPClassUID"),
        sop_instance_uid=text("SOPInstanceUID"),
        study_instance_uid=text("StudyInstanceUID"),
        series_instance_uid=text("SeriesInstanceUID"),
        modality=text("Modality"),
        study_date=text("StudyDate"),
        rows=int(dataset.get("Rows") or 0),
        columns=int(dataset.get("Columns") or 0),
    )


def wrap_as_dx(path: Path, instance: int = 1) -> Path:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    dataset.SOPInstanceUID = f"{STUDY_UID}.1.{instance}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY_UID, f"{STUDY_UID}.1"
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20260101", "101112", "77"
    dataset.ReferringPhysicianName = "Refers^Anna"
    dataset.Modality = "DX"
    pixels = phantom()
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = pixels.tobytes()
    dataset.save_as(path, enforce_file_format=True)
    return path


def names(result: RenderResult) -> list[str]:
    return [file.name for file in result.files]


def pdf_text(directory: Path) -> str:
    pages = PdfReader(directory / "report.pdf").pages
    return " ".join(" ".join(page.extract_text() for page in pages).split())


def sr_texts(dataset: Dataset) -> Iterator[str]:
    for item in dataset.get("ContentSequence", []):
        if item.ValueType == "TEXT":
            yield item.TextValue
        yield from sr_texts(item)


def assert_valid_dicom(path: Path) -> None:
    for tool in ("dciodvfy", "dsrdump"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed (Debian: dicom3tools, dcmtk)")
    checked = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
    assert "Error" not in checked.stdout + checked.stderr
    if path.name.endswith(".sr.dcm"):
        dumped = subprocess.run(["dsrdump", str(path)], capture_output=True, text=True, check=False)
        assert dumped.returncode == 0
        assert not re.search(r"^[EF]: ", dumped.stdout + dumped.stderr, re.MULTILINE)


def read_strictly(path: Path) -> None:
    """Read every value, nested ones too; pydicom raises for one that its VR does not allow."""
    mode = pydicom.config.settings.reading_validation_mode
    pydicom.config.settings.reading_validation_mode = pydicom.config.RAISE
    try:
        pydicom.dcmread(path).walk(lambda dataset, element: element.value)
    finally:
        pydicom.config.settings.reading_validation_mode = mode
