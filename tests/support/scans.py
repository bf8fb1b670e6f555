"""Small, seeded scans for the tests of the whole appliance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid


def write_ct_slice(path: Path, *, seed: int, study: str = "", instance: int = 1, side: int = 64) -> str:
    """Write one CT slice of seeded noise, a study of its own unless ``study`` names one; return its study UID."""
    rng = np.random.default_rng(seed)
    study = study or generate_uid(entropy_srcs=["study", str(seed)])
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["instance", str(seed), str(instance)])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = Dataset()
    ds.file_meta = meta
    ds.SOPClassUID = meta.MediaStorageSOPClassUID
    ds.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    ds.StudyInstanceUID = study
    ds.SeriesInstanceUID = f"{study}.1"[:64]
    ds.PatientName = f"PHANTOM^Number {seed}"
    ds.PatientID = f"PH-{seed:04d}"
    ds.PatientBirthDate = "19700101"
    ds.PatientSex = "O"
    ds.AccessionNumber = f"AC{seed}"
    ds.StudyID = "1"
    ds.StudyDate = "20260101"
    ds.StudyTime = "120000"
    ds.ReferringPhysicianName = ""
    ds.Modality = "CT"
    ds.BodyPartExamined = "KNEE"  # nothing but echo claims it
    ds.Manufacturer = "clinic-ai tests"
    ds.SeriesNumber = 1
    ds.InstanceNumber = instance
    ds.Rows = ds.Columns = side
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit = 15
    ds.PixelRepresentation = 1
    ds.RescaleIntercept = "-1024"
    ds.RescaleSlope = "1"
    ds.PixelData = rng.integers(0, 2000, (side, side), dtype=np.int16).tobytes()
    ds.save_as(path, enforce_file_format=True)
    return str(study)
