"""Chest X-ray phantoms: drawings that behave like films, for tests and demonstrations. They show nobody.

``python -m clinic_ai_xray.phantom OUTDIR --count N`` writes N of them as DX files.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from clinic_ai.ml.greys import Float, resize

_ROOT = "1.2.826.0.1.3680043.10.1644."
"""Prefix of our UIDs, followed by a hash of the seed."""
_VIEWS = {
    "AP": ("399348003", "SCT", "Antero-posterior projection"),
    "PA": ("272479007", "SCT", "Postero-anterior projection"),
    "LL": ("399198007", "SCT", "Right to left lateral projection"),
}
_DENSITY = {"air": 0.04, "lung": 0.22, "tissue": 0.55, "bone": 0.18, "heart": 0.72}


def draw_chest(rows: int, columns: int, *, seed: int, opacity: bool = False) -> Float:
    """Return a phantom as grey levels, float32 (rows, columns) in 0..1, bright where dense.

    ``opacity`` adds a hazy patch to one lung. The same seed gives the same picture.
    """
    generator = np.random.default_rng(seed)
    height, width = 512, 448  # drawn at one size, then enlarged: cheap, and the same anatomy at any size
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    y, x = y / height, x / width
    sway = generator.normal(0.0, 0.012, 6)
    image = np.full((height, width), _DENSITY["air"], dtype=np.float32)
    body = _ellipse(y, x, 0.62 + sway[0], 0.5, 0.62, 0.47 + sway[1])
    image += (_DENSITY["tissue"] - _DENSITY["air"]) * body
    lungs = np.zeros_like(image)
    for centre in (0.29 + sway[2], 0.71 + sway[2]):
        lungs = np.maximum(lungs, _ellipse(y, x, 0.45 + sway[3], centre, 0.31, 0.165))
    image -= (_DENSITY["tissue"] - _DENSITY["lung"]) * lungs
    image += _ribs(y, x, sway[4]) * lungs
    heart = _ellipse(y, x, 0.60, 0.56 + sway[5], 0.17, 0.15)
    image += (_DENSITY["heart"] - image) * heart * 0.9
    spine = np.exp(-(((x - 0.5) / 0.035) ** 2)) * body
    image += 0.18 * spine
    diaphragm = 1.0 / (1.0 + np.exp(-(y - 0.74 - 0.05 * np.cos(6 * np.pi * x)) / 0.012))
    image += (0.66 - image) * diaphragm * body
    if opacity:
        image += _opacity(y, x, generator) * lungs * (1 - diaphragm)
    image += resize(generator.normal(0.0, 0.035, (64, 56)).astype(np.float32), (height, width))
    enlarged = resize(image, (rows, columns))
    enlarged = enlarged + generator.normal(0.0, 0.008, (rows, columns)).astype(np.float32)
    return np.clip(enlarged, 0.0, 1.0).astype(np.float32)


def _ellipse(y: Float, x: Float, row: float, column: float, high: float, wide: float) -> Float:
    """Return 1 inside, 0 outside, soft at the edge; centre and half axes in fractions of the image."""
    distance = ((y - row) / high) ** 2 + ((x - column) / wide) ** 2
    return np.asarray(1.0 / (1.0 + np.exp((distance - 1.0) * 18.0)), dtype=np.float32)


def _ribs(y: Float, x: Float, phase: float) -> Float:
    curve = y + 0.35 * (x - 0.5) ** 2 + phase
    return np.asarray(_DENSITY["bone"] * np.clip(np.sin(curve * 58.0) - 0.45, 0.0, None), dtype=np.float32)


def _opacity(y: Float, x: Float, generator: np.random.Generator) -> Float:
    side = generator.choice((0.29, 0.71))
    row, column = generator.uniform(0.45, 0.65), side + generator.normal(0.0, 0.03)
    haze = np.exp(-(((y - row) / 0.13) ** 2 + ((x - column) / 0.11) ** 2))
    return np.asarray(0.34 * haze * (1 + 0.2 * np.sin(60 * x) * np.sin(50 * y)), dtype=np.float32)


def write_dx(
    path: Path | str,
    pixels: Float,
    *,
    seed: int,
    monochrome1: bool = False,
    bits: int = 16,
    view: str = "PA",
    body_part: str = "CHEST",
    series_description: str = "",
    patient: str | None = None,
    study: int | None = None,
    sex: str = "O",
    age: str = "",
    station: str = "PHANTOM",
) -> Dataset:
    """Wrap grey levels (rows, columns) in 0..1, bright = dense, as a DX file for presentation; return the dataset.

    ``bits`` of each sample are stored in 8 or 16. Identifiers follow from ``seed``; ``patient`` makes several
    files belong to one patient, ``study`` (a seed) to one study. ``age`` is as DICOM writes it, such as 045Y.
    Everything says that it is a phantom.
    """
    dataset = Dataset()
    _patient_and_study(dataset, seed, patient if patient is not None else f"PHANTOM{seed:06d}")
    if study is not None:
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = _uid(study, "study"), _uid(study, "series")
    dataset.PatientSex, dataset.PatientAge = sex, age
    _acquisition(dataset, view, body_part, series_description)
    dataset.StationName = station
    _pixels(dataset, pixels, monochrome1, bits)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta = meta
    dataset.save_as(path, enforce_file_format=True)
    return dataset


def _uid(seed: int, what: str) -> UID:
    digest = hashlib.sha256(f"phantom {what} {seed}".encode()).digest()
    return UID(_ROOT + str(int.from_bytes(digest[:12])))


def _patient_and_study(dataset: Dataset, seed: int, patient: str) -> None:
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = _uid(seed, "instance")
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = _uid(seed, "study"), _uid(seed, "series")
    dataset.StudyDate = dataset.SeriesDate = dataset.ContentDate = dataset.AcquisitionDate = "20260101"
    dataset.StudyTime = dataset.SeriesTime = dataset.ContentTime = dataset.AcquisitionTime = "120000"
    dataset.AccessionNumber = f"PHANTOM{seed % 10**8:08d}"
    dataset.ReferringPhysicianName = ""
    dataset.PatientName = f"PHANTOM^NUMBER {seed}"
    dataset.PatientID = patient
    dataset.PatientBirthDate = ""
    dataset.StudyID, dataset.SeriesNumber, dataset.InstanceNumber = "1", 1, 1
    dataset.StudyDescription = "Phantom, not a patient"
    dataset.PatientOrientation = ["L", "F"]


def _acquisition(dataset: Dataset, view: str, body_part: str, series_description: str) -> None:
    dataset.Modality = "DX"
    dataset.Manufacturer, dataset.ManufacturerModelName = "clinic-ai", "phantom generator"
    dataset.PresentationIntentType = "FOR PRESENTATION"
    if series_description:
        dataset.SeriesDescription = series_description
    if body_part:
        dataset.BodyPartExamined = body_part
    if view:
        dataset.ViewPosition = view
    dataset.ImageLaterality = "U"
    region = _code("51185008", "SCT", "Chest")
    dataset.AnatomicRegionSequence = Sequence([region])
    dataset.ViewCodeSequence = Sequence([_code(*_VIEWS.get(view, _VIEWS["AP"]))])
    dataset.ViewCodeSequence[0].ViewModifierCodeSequence = Sequence([])
    dataset.PatientOrientationCodeSequence = Sequence([_code("10904000", "SCT", "Erect")])
    dataset.AcquisitionContextSequence = Sequence([])
    dataset.DetectorType = "DIRECT"
    dataset.PositionerType = "NONE"
    dataset.ImagerPixelSpacing = [0.171, 0.171]
    dataset.BurnedInAnnotation = "NO"
    dataset.LossyImageCompression = "00"
    dataset.ImageComments = "Phantom drawn by software; shows no person."


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _pixels(dataset: Dataset, pixels: npt.NDArray[np.float32], monochrome1: bool, bits: int) -> None:
    white = 2**bits - 1
    stored = np.rint(pixels * white).astype(np.uint16 if bits > 8 else np.uint8)
    if monochrome1:
        stored = (white - stored).astype(stored.dtype)
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.PhotometricInterpretation = "MONOCHROME1" if monochrome1 else "MONOCHROME2"
    dataset.PresentationLUTShape = "INVERSE" if monochrome1 else "IDENTITY"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = (16 if bits > 8 else 8), bits, bits - 1
    dataset.PixelIntensityRelationship, dataset.PixelIntensityRelationshipSign = "LOG", -1 if monochrome1 else 1
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, "US"
    dataset.WindowCenter, dataset.WindowWidth = 2 ** (bits - 1), 2**bits
    content = stored.tobytes()
    dataset.PixelData = content + b"\0" * (len(content) % 2)


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Write phantom chest X-rays as DX files.")
    parser.add_argument("outdir", type=Path)
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--columns", type=int, default=896)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)
    chosen.outdir.mkdir(parents=True, exist_ok=True)
    for seed in range(chosen.seed, chosen.seed + chosen.count):
        pixels = draw_chest(chosen.rows, chosen.columns, seed=seed, opacity=seed % 2 == 0)
        path = chosen.outdir / f"phantom-{seed:04d}.dcm"
        write_dx(path, pixels, seed=seed, monochrome1=seed % 3 == 0, bits=12)
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
