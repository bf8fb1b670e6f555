"""A small CT stack in files, masks over it, and an analysis of it as the renderer gets it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from rendering import STUDY_UID, finding, verdict

from clinic_ai.domain import (
    FileKind,
    Finding,
    FramePlane,
    GuardVerdict,
    InstanceHeader,
    Mask,
    ModelRef,
    PlaneGeometry,
    Presence,
    Segment,
    Segmentation,
    SliceRef,
)
from clinic_ai.ml.segmentations import write_masks
from clinic_ai.tasks import Outlines, RenderImage, StoredSegmentation

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2.1"
FRAME_OF_REFERENCE = f"{STUDY_UID}.9"
SERIES_UID = f"{STUDY_UID}.2"
CT_MODEL = ModelRef(plugin="ct", name="reference", version="1.0", digest="d" * 64)
SPACING = (2.5, 1.5, 1.5)
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)

Bits = npt.NDArray[np.bool_]


def thorax(slices: int, rows: int, columns: int) -> npt.NDArray[np.int16]:
    """Return HU (slice, row, column): a body with two lungs, a spine and a heart, the first slice at the feet."""
    z, y, x = np.mgrid[0:slices, 0:rows, 0:columns].astype(float)
    z, y, x = z / slices - 0.5, y / rows - 0.5, x / columns - 0.5
    hu = np.full((slices, rows, columns), -1000, np.int16)
    hu[(x / 0.46) ** 2 + (y / 0.34) ** 2 < 1] = 40
    for side in (-1, 1):
        hu[((x - side * 0.2) / 0.16) ** 2 + (y / 0.25) ** 2 + (z / 0.48) ** 2 < 1] = -820
    hu[((x - 0.06) / 0.13) ** 2 + ((y + 0.06) / 0.13) ** 2 + ((z + 0.12) / 0.25) ** 2 < 1] = 45
    hu[(x / 0.05) ** 2 + ((y - 0.24) / 0.06) ** 2 < 1] = 420
    return hu


def ball(shape: tuple[int, int, int], centre: tuple[float, float, float], radius_mm: float) -> Bits:
    """Return a ball on the grid of the stack; ``centre`` is in parts of the shape."""
    axes = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    parts = ((axis - c * n) * mm for axis, c, n, mm in zip(axes, centre, shape, SPACING, strict=True))
    return np.asarray(sum(part**2 for part in parts) < radius_mm**2)


def ct_slices(directory: Path, hu: npt.NDArray[np.int16]) -> tuple[RenderImage, ...]:
    """Write one CT Image object for each slice and return the images in the order of the stack."""
    return tuple(_slice(directory / f"stored-{number}", hu[number], number) for number in range(len(hu)))


def ct_object(directory: Path, hu: npt.NDArray[np.int16]) -> RenderImage:
    """Write the stack as one object with a frame for each slice."""
    dataset = _common(hu, ENHANCED_CT_IMAGE, f"{STUDY_UID}.2.1")
    dataset.NumberOfFrames = len(hu)
    frames = tuple(
        FramePlane(image_position_patient=_position(hu.shape, number), image_orientation_patient=AXIAL)
        for number in range(len(hu))
    )
    path = directory / "stored-enhanced"
    dataset.save_as(path, enforce_file_format=True)
    return _image(path, dataset, PlaneGeometry(
        pixel_spacing=SPACING[1:], slice_thickness=SPACING[0], frame_of_reference_uid=FRAME_OF_REFERENCE,
        frames=frames, frames_placed="each",
    ), frames=len(hu))  # fmt: skip


def _slice(path: Path, hu: npt.NDArray[np.int16], number: int) -> RenderImage:
    dataset = _common(hu, CT_IMAGE, f"{STUDY_UID}.2.{number + 1}")
    dataset.InstanceNumber = number + 1
    position = _position((0, *hu.shape), number)
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = list(position), list(AXIAL)
    dataset.PixelSpacing, dataset.SliceThickness = list(SPACING[1:]), SPACING[0]
    dataset.save_as(path, enforce_file_format=True)
    return _image(path, dataset, PlaneGeometry(
        image_position_patient=position, image_orientation_patient=AXIAL, pixel_spacing=SPACING[1:],
        slice_thickness=SPACING[0], frame_of_reference_uid=FRAME_OF_REFERENCE,
    ), frames=1)  # fmt: skip


def _common(hu: npt.NDArray[np.int16], sop_class: str, uid: str) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, uid
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY_UID, SERIES_UID
    dataset.FrameOfReferenceUID = FRAME_OF_REFERENCE
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20260101", "101112", "77"
    dataset.Modality = "CT"
    dataset.Rows, dataset.Columns = hu.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 1
    dataset.RescaleIntercept, dataset.RescaleSlope = 0, 1
    dataset.PixelData = hu.astype("<i2").tobytes()
    return dataset


def _position(shape: tuple[int, ...], number: int) -> tuple[float, float, float]:
    _, y, x = SPACING
    return (-x * shape[2] / 2, -y * shape[1] / 2, -100.0 + SPACING[0] * number)


def _image(path: Path, dataset: Dataset, geometry: PlaneGeometry, *, frames: int) -> RenderImage:
    header = InstanceHeader(
        kind=FileKind.DICOM,
        sop_class_uid=dataset.SOPClassUID,
        sop_instance_uid=dataset.SOPInstanceUID,
        study_instance_uid=STUDY_UID,
        series_instance_uid=SERIES_UID,
        modality="CT",
        study_date="20260101",
        rows=dataset.Rows,
        columns=dataset.Columns,
        frames=frames,
        geometry=geometry,
    )
    return RenderImage(path=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest(), header=header)


def segmentation(
    directory: Path, images: Iterable[RenderImage], masks: dict[str, Bits], anatomy: Iterable[str] = ()
) -> StoredSegmentation:
    """Write masks over the stack of these images as an engine does; names among ``anatomy`` are organs."""
    refs = tuple(SliceRef(sha256=image.sha256, frame=frame) for image in images for frame in range(image.header.frames))
    path = directory / "stored-masks"
    stacked = np.stack(list(masks.values()))
    write_masks(path, stacked)
    organs = set(anatomy)
    segments = tuple(
        Segment(number=n, name=name, role="anatomy" if name in organs else "finding", label="UNGUARDED LABEL")
        for n, name in enumerate(masks, start=1)
    )
    return StoredSegmentation(
        path=str(path),
        segmentation=Segmentation(
            file="masks.npz", slices=refs, rows=stacked.shape[2], columns=stacked.shape[3], segments=segments
        ),
    )


def found(image: RenderImage, condition: str, presence: Presence = Presence.PRESENT) -> Finding:
    """Return a finding of the CT plugin's."""
    probability = {Presence.PRESENT: 0.93, Presence.UNCERTAIN: 0.4, Presence.ABSENT: 0.02}[presence]
    return finding(image, condition, probability, presence=presence, model="", validation=None)


def all_released(findings: Iterable[Finding]) -> GuardVerdict:
    """Return a verdict that lets the words of all of them out."""
    return verdict(*((f"f_{n}", f"Words of {f.condition}.") for n, f in enumerate(findings, start=1)))


def outlines(
    findings: int, stored: StoredSegmentation | None = None, masks: tuple[Mask, ...] = ()
) -> tuple[Outlines, ...]:
    """Return what the CT plugin outlined, all findings being its own."""
    return (
        Outlines(
            plugin="ct",
            findings=tuple(range(findings)),
            masks=masks,
            segmentations=() if stored is None else (stored,),
        ),
    )
