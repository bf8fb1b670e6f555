"""Phantoms as DICOM series of CT images, sound ones and such as scanners and archives spoil."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from scipy import ndimage

from clinic_ai_ct.phantoms.making import Phantom
from clinic_ai_ct.volume import HU, Grid

_AGENTS = {"none": "", "arterial": "IODINE", "venous": "IODINE"}
Edit = Callable[[Dataset], None]


@dataclass(frozen=True)
class Spoilt:
    """How a series is spoilt; nothing of it by default.

    ``tilt`` turns the gantry by degrees; ``gap_mm`` is added once in the middle; ``missing`` are slices left out,
    counted from 0 at the feet; ``shuffled`` gives names and instance numbers in any order. ``edit`` may change each
    header.
    """

    tilt: float = 0.0
    gap_mm: float = 0.0
    missing: Collection[int] = ()
    shuffled: bool = False
    edit: Edit | None = None


SOUND = Spoilt()


def write_dicom(phantom: Phantom, directory: Path, spoilt: Spoilt = SOUND) -> list[Path]:
    """Write the phantom as one CT series, a file for each slice, the feet first; return the files in that order.

    Files of the same phantom are the same, byte for byte. The patient is called PHANTOM and was never born.
    """
    directory.mkdir(parents=True, exist_ok=True)
    hu, grid = phantom.volume.hu, phantom.volume.grid
    if spoilt.tilt:
        hu = _tilted(hu, grid, spoilt.tilt)
    kept = [k for k in range(grid.shape[0]) if k not in set(spoilt.missing)]
    numbers = list(range(1, len(kept) + 1))
    if spoilt.shuffled:
        numbers = [int(number) for number in np.random.default_rng(phantom.seed).permutation(numbers)]
    files = []
    for k, number in zip(kept, numbers, strict=True):
        dataset = _image(phantom, grid, k, number)
        _place(dataset, grid, k, spoilt)
        _pixels(dataset, hu[k])
        if spoilt.edit is not None:
            spoilt.edit(dataset)
            dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        path = directory / f"IM{number:04d}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        files.append(path)
    return files


def _tilted(hu: HU, grid: Grid, degrees: float) -> HU:
    """Return the slices that a gantry tilted about the x axis would make: each through its own middle."""
    down = (np.arange(grid.shape[1]) - (grid.shape[1] - 1) / 2) * grid.spacing[1]
    up, along = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    z = np.arange(grid.shape[0])[:, None] + up * down / grid.spacing[0]
    y = np.broadcast_to(along * down / grid.spacing[1] + (grid.shape[1] - 1) / 2, z.shape)
    planes = [
        ndimage.map_coordinates(hu[:, :, i].astype(np.float32), (z, y), order=1, mode="constant", cval=-1000.0)
        for i in range(grid.shape[2])
    ]
    tilted: HU = np.rint(np.stack(planes, axis=2)).astype(np.int16)
    return tilted


def _place(dataset: Dataset, grid: Grid, k: int, spoilt: Spoilt) -> None:
    """Say where slice ``k`` lies."""
    up, along = math.sin(math.radians(spoilt.tilt)), math.cos(math.radians(spoilt.tilt))
    half = (grid.shape[1] - 1) / 2 * grid.spacing[1]
    x, y, z = grid.origin
    z += k * grid.spacing[0] + (spoilt.gap_mm if k >= grid.shape[0] // 2 else 0.0)
    y, z = y + half - along * half, z - up * half
    dataset.ImageOrientationPatient = [1, 0, 0, 0, round(along, 6), round(up, 6)]
    dataset.ImagePositionPatient = [round(x, 4), round(y, 4), round(z, 4)]
    dataset.SliceLocation = round(z, 4)
    dataset.GantryDetectorTilt = round(spoilt.tilt, 2)
    dataset.SliceThickness = round(grid.spacing[0], 4)
    dataset.SpacingBetweenSlices = round(grid.spacing[0], 4)
    dataset.PixelSpacing = [round(grid.spacing[1], 6), round(grid.spacing[2], 6)]


def _pixels(dataset: Dataset, plane: npt.NDArray[np.int16]) -> None:
    dataset.Rows, dataset.Columns = plane.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "-1024", "1", "HU"
    dataset.WindowCenter, dataset.WindowWidth = ["40", "-600"], ["400", "1500"]
    dataset.PixelData = np.clip(plane.astype(np.int32) + 1024, 0, 4095).astype("<u2").tobytes()


def _image(phantom: Phantom, grid: Grid, k: int, number: int) -> Dataset:
    """Return a CT image (PS3.3 A.3) without place and pixels."""
    seeds = [str(phantom.seed), str(grid.shape), str(grid.spacing), phantom.contrast]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["phantom image", *seeds, str(k)])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID = generate_uid(entropy_srcs=["phantom study", *seeds])
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=["phantom series", *seeds])
    dataset.FrameOfReferenceUID = generate_uid(entropy_srcs=["phantom frame", *seeds])
    dataset.PatientName, dataset.PatientID = f"PHANTOM^{phantom.seed:06d}", f"CT-PHANTOM-{phantom.seed}"
    dataset.PatientBirthDate, dataset.PatientSex, dataset.PatientPosition = "", "O", "HFS"
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = "20260101"
    dataset.StudyTime = dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = "120000"
    dataset.AccessionNumber, dataset.StudyID, dataset.ReferringPhysicianName = "", str(phantom.seed), ""
    dataset.StudyDescription, dataset.SeriesDescription = "CT chest (phantom)", "Chest axial"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.Modality, dataset.BodyPartExamined, dataset.ProtocolName = "CT", "CHEST", "Chest"
    dataset.Manufacturer, dataset.ManufacturerModelName = "clinic-ai", "phantom"
    dataset.StationName, dataset.SoftwareVersions = "PHANTOM", "1"
    dataset.SeriesNumber, dataset.AcquisitionNumber, dataset.InstanceNumber = 2, 1, number
    dataset.PositionReferenceIndicator, dataset.KVP, dataset.ConvolutionKernel = "", "120", "SOFT"
    if _AGENTS[phantom.contrast]:
        dataset.ContrastBolusAgent = _AGENTS[phantom.contrast]
        dataset.ContrastBolusRoute = "IV"
    return dataset
