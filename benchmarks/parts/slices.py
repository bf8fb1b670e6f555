"""CT slices of noise, made in memory: as a scanner would name and order them, of nobody."""

from __future__ import annotations

import random
from collections.abc import Iterator

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

SIDE = 512
PER_STUDY = 250
_NOISE = random.Random(7)


def study_uid(*names: object) -> str:
    """Return the same Study Instance UID for the same names, short enough for one more component behind it."""
    return str(generate_uid(entropy_srcs=list(map(str, names))))[:50].rstrip(".")


def sop_uid(study: str, number: int) -> str:
    """Return the SOP Instance UID of the slice with this number."""
    return f"{study}.2.{number}"


def ct_slice(study: str, number: int, *, side: int = SIDE, patient: str = "BENCH-0") -> bytes:
    """Return slice ``number`` (from 1) of a study as a file: ``side`` × ``side`` pixels of 16 bit, 1 mm apart.

    The pixels are random and differ from call to call: a disk shall not compress them.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = sop_uid(study, number)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    slice_ = Dataset()
    slice_.file_meta = meta
    slice_.SOPClassUID, slice_.SOPInstanceUID = CTImageStorage, sop_uid(study, number)
    slice_.StudyInstanceUID, slice_.SeriesInstanceUID = study, f"{study}.1"
    slice_.FrameOfReferenceUID = f"{study}.3"
    slice_.PatientID, slice_.PatientName = patient, "PHANTOM^Benchmark"
    slice_.StudyDate, slice_.StudyTime, slice_.StudyID = "20260101", "120000", "1"
    slice_.Modality, slice_.BodyPartExamined, slice_.Manufacturer = "CT", "CHEST", "clinic-ai"
    slice_.SeriesNumber, slice_.InstanceNumber = 1, number
    slice_.ImageOrientationPatient = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    slice_.ImagePositionPatient = [-250.0, -250.0, float(number)]
    slice_.PixelSpacing, slice_.SliceThickness = [1.0, 1.0], 1.0
    slice_.Rows = slice_.Columns = side
    slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
    slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = 16, 16, 15, 1
    slice_.RescaleIntercept, slice_.RescaleSlope = "-1024", "1"
    slice_.PixelData = _NOISE.randbytes(side * side * 2)
    buffer = DicomBytesIO()
    slice_.save_as(buffer, enforce_file_format=True)
    return bytes(buffer.getvalue())


def ct_slices(count: int, *, per_study: int = PER_STUDY, side: int = SIDE) -> Iterator[bytes]:
    """Yield ``count`` slices, study after study, each of another patient."""
    for index in range(count):
        scan = index // per_study
        yield ct_slice(study_uid("benchmark", scan), index % per_study + 1, side=side, patient=f"BENCH-{scan}")
