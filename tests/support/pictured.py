"""Studies of real pictures in a served control room: stored bytes, headers as the parser reads them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from control_room import Room
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from clinic_ai.domain import CloseCode, InstanceHeader, PatientIdentity, StudyFacts
from clinic_ai.store import ledger, studies
from clinic_ai.store.objects import ObjectStore
from clinic_ai.workers import parser

_NUMBERS = itertools.count(1)


def add_pictures(room: Room, paths: Sequence[Path], *, headers: Sequence[InstanceHeader] = ()) -> str:
    """Store files as one closed study; return its id. ``headers`` stand in for what the parser would say of them."""
    number = next(_NUMBERS)
    objects = ObjectStore(room.home.objects)
    read = list(headers) or [_header(path) for path in paths]
    facts = StudyFacts(
        source="ct room", modalities=tuple(sorted({header.modality for header in read if header.modality}))
    )
    with room.database.write() as c:
        study_id = studies.open_study(
            c,
            grouping_key=f"pictured {number}",
            study_instance_uid=f"1.2.3.{number}",
            pseudonym=f"P-{number:08d}",
            patient_key="d" * 64,
            source="ct room",
            facts=facts,
            identity=PatientIdentity(patient_id="4711"),
            wait=None,
        )
        for path, header in zip(paths, read, strict=True):
            seen = ledger.Sighting("ct room", f"{number}/{path.name}", path.name.encode(), path.stat().st_size, 1)
            (file_id,) = ledger.begin_claims(c, [seen])
            sha256, size = objects.write_bytes(path.read_bytes())
            new = studies.NewInstance(file_id=file_id, sha256=sha256, size_bytes=size, header=header)
            studies.add_instances(c, study_id, 1, [new], wait=None)
            ledger.confirm_claims(c, [(file_id, sha256, size)])
            ledger.decide(c, [ledger.Outcome(file_id, ledger.Fate.STORED, study_id=study_id)])
        studies.close_version(
            c, study_id, 1, facts=facts, code=CloseCode.QUIET, reason="nothing arrived for 5 s", actor="ingest"
        )
    return study_id


def _header(path: Path) -> InstanceHeader:
    with path.open("rb") as file:
        return parser.read_header(file, path.stat().st_size, 400_000_000)


def write_bar(path: Path, number: int, *, side: int = 64, spacing: tuple[float, float] = (1.0, 1.0)) -> Path:
    """Write an axial CT slice: air, and a bar of bone (1000 HU) whose column says which ``number`` from 1 it is."""
    pixels = np.full((side, side), 24, dtype=np.int16)  # -1000 HU
    pixels[8 : side - 8, 8 * number : 8 * number + 8] = 2024
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["bar", str(number), str(spacing)])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = Dataset()
    ds.file_meta = meta
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3", "1.2.3.1"
    ds.Modality, ds.SeriesNumber, ds.InstanceNumber = "CT", 1, number
    ds.SeriesDescription = "Bars"
    ds.ImagePositionPatient = [-32, -32, 5 * number]
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing = list(spacing)
    ds.Rows = ds.Columns = side
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 1
    ds.RescaleIntercept, ds.RescaleSlope = "-1024", "1"
    ds.WindowCenter, ds.WindowWidth = "0", "2000"
    ds.PixelData = pixels.tobytes()
    ds.save_as(path, enforce_file_format=True)
    return path
