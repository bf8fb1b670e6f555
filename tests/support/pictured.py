"""Studies of real pictures in a served control room: stored bytes, headers as the parser reads them."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from control_room import Room
from PIL import Image
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from sqlalchemy import Connection

from clinic_ai.control.preview_views import PreviewView
from clinic_ai.domain import (
    Analysis,
    Audience,
    CloseCode,
    Decision,
    Finding,
    GuardAction,
    GuardVerdict,
    InstanceHeader,
    JobKind,
    PatientIdentity,
    Presence,
    ProducedFile,
    Released,
    Segment,
    Segmentation,
    SliceRef,
    StoredFile,
    StudyFacts,
)
from clinic_ai.ml.segmentations import write_masks
from clinic_ai.store import artefacts, jobs, ledger, studies
from clinic_ai.store.objects import ObjectStore
from clinic_ai.tui.pixels import inked
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


def add_heat(
    room: Room, study_id: str, *, released: Sequence[str] = ("f_1",), action: GuardAction = GuardAction.ALLOW
) -> None:
    """Store an analysis whose two findings have one heat map, hot in its upper half; of them ``released`` may be said.

    The second finding has no heat map of its own.
    """
    objects = ObjectStore(room.home.objects)
    buffer = io.BytesIO()
    heat = np.zeros((16, 16), dtype=np.uint8)
    heat[:8] = 255
    Image.fromarray(heat).save(buffer, format="PNG")
    sha256, size = objects.write_bytes(buffer.getvalue())
    with room.database.write() as c:
        [image, *_] = studies.instances_of(c, study_id, 1)
        first = Finding(
            condition="pneumonia",
            label="UNGUARDED",
            probability=0.98,
            threshold=0.47,
            presence=Presence.PRESENT,
            instance_sha256=image.sha256,
            heatmap="heat.png",
            laterality="left",
        )
        second = first.model_copy(update={"condition": "pleural_effusion", "heatmap": None, "probability": 0.1})
        made = ProducedFile(name="heat.png", role="heatmap", media_type="image/png", instance_sha256=image.sha256)
        analysis = Analysis(plugin="echo", plugin_version="1", models=(), findings=(first, second), files=(made,))
        stored = StoredFile(name="heat.png", sha256=sha256, size_bytes=size, media_type="image/png")
        _report(c, study_id, analysis, stored, released, action)


def add_outlines(room: Room, study_id: str, *, released: Sequence[str] = ("f_1",)) -> None:
    """Store an analysis with a nodule outlined on the second image of a stack, in rows 20 to 39 of columns 30 to 49."""
    objects = ObjectStore(room.home.objects)
    with room.database.write() as c:
        images = studies.instances_of(c, study_id, 1)
        rows, columns = images[0].header.rows, images[0].header.columns
        masks = np.zeros((1, len(images), rows, columns), dtype=bool)
        masks[0, 1, 20:40, 30:50] = True
        path = room.home.path / "masks.npz"
        write_masks(path, masks)
        sha256, size = objects.write_bytes(path.read_bytes())
        nodule = Finding(
            condition="lung_nodule",
            label="UNGUARDED",
            probability=0.9,
            threshold=0.5,
            presence=Presence.PRESENT,
            instance_sha256=images[1].sha256,
        )
        drawn = Segmentation(
            file="masks.npz",
            slices=tuple(SliceRef(sha256=image.sha256, frame=0) for image in images),
            rows=rows,
            columns=columns,
            segments=(Segment(number=1, name="lung_nodule", label="UNGUARDED"),),
        )
        analysis = Analysis(plugin="echo", plugin_version="1", models=(), findings=(nodule,), segmentations=(drawn,))
        stored = StoredFile(name="masks.npz", sha256=sha256, size_bytes=size, media_type="application/x-npz")
        _report(c, study_id, analysis, stored, released, GuardAction.ALLOW)


def _report(
    c: Connection,
    study_id: str,
    analysis: Analysis,
    stored: StoredFile,
    released: Sequence[str],
    action: GuardAction,
) -> None:
    """Store an analysis and a result of which ``released`` may be said."""
    job = jobs.get_job(c, jobs.add_job(c, kind=JobKind.ANALYSE, study_id=study_id, version=1, plugin="echo"))
    jobs.save_analysis(c, jobs.lease(c, job, "test", (), ""), analysis, (stored,))
    jobs.succeed(c, job.job_id)
    verdict = GuardVerdict(
        audience=Audience.CLINICIAN,
        action=action,
        decisions=(Decision(statement_id="f_1", rule="test.rule", action=action, reason="Because."),),
        released=tuple(
            Released(statement_id=key, audience=Audience.CLINICIAN, text=f"Said {key}.", policy_hash="c" * 64)
            for key in released
        ),
        marks=(),
        policy_hash="c" * 64,
        policy_name="default",
    )
    report = jobs.add_job(c, kind=JobKind.REPORT, study_id=study_id, version=1)
    artefacts.add_artefact(c, jobs.get_job(c, report), verdict)


def picture_of(view: PreviewView) -> list[str]:
    """Return a picture as lines of characters, one for the two pixels of a cell."""
    return [inked(view.rgb(), view.columns, line) for line in range(view.rows // 2)]
