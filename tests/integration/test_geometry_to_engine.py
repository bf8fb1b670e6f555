"""Slices dropped into an inbox reach the engine of a plugin as a volume."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest
from copies import open_deidentifier
from intake_site import Site
from scans import write_ct_slice
from slices import AXIAL

from clinic_ai.analyses import AnalyseRunner
from clinic_ai.contract import PluginManifest
from clinic_ai.domain import (
    FileKind,
    FramePlane,
    InstanceHeader,
    Job,
    JobKind,
    PatientIdentity,
    PlaneGeometry,
    StudyFacts,
)
from clinic_ai.engines import Engines, EngineSettings
from clinic_ai.errors import InputError
from clinic_ai.guard.client import Guard
from clinic_ai.store import jobs, ledger, studies
from clinic_ai.store.ledger import Sighting
from clinic_ai.training.registry import Registry
from clinic_ai.workers.planes import MAX_FRAMES

PLUGIN = PluginManifest(
    name="volumes",
    version="1",
    summary="Remarks on volumes.",
    needs_model=False,
    memory_mb=200,
    timeout_s=20.0,
    engine="volume_engine:VolumeEngine",
)


def runner_of(site: Site) -> AnalyseRunner:
    """Return what runs analyses of this site, with engines of its own."""
    manifests = {PLUGIN.name: PLUGIN}
    settings = EngineSettings(memory_mb=300, threads=1, idle_s=3600, restart_cap=2, restart_window_s=60, rest_s=3600)
    return AnalyseRunner(
        database=site.database,
        objects=site.objects,
        job_directories=site.home.jobs,
        engines=Engines(site.crew, lambda: settings),
        models=Registry(site.home, site.database, manifests, site.crew),
        manifests=lambda: manifests,
        guard=Guard(site.crew, site.home.policies),
        policy_hash=lambda: "0" * 64,
        deidentifier=open_deidentifier(site.home, site.database, site.crew),
    )


def job_for(site: Site, study_id: str) -> Job:
    """Queue an analysis of version 1 of a study."""
    with site.database.write() as connection:
        job_id = jobs.add_job(connection, kind=JobKind.ANALYSE, study_id=study_id, version=1, plugin=PLUGIN.name)
        return jobs.get_job(connection, job_id)


def test_dropped_slices_reach_an_engine_as_a_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent / "support"))
    site = Site(tmp_path / "h")
    for number, height in enumerate([6.0, 0.0, 3.0], 1):
        path = site.home.inbox / f"{number}.dcm"
        write_ct_slice(path, seed=number, study="1.2.3", instance=number, side=8)
        dataset = pydicom.dcmread(path)
        dataset.PatientID = "PH-1"
        dataset.ImagePositionPatient = [0, 0, height]
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.PixelSpacing = [0.5, 0.75]
        dataset.save_as(path)
    site.settle(3)
    (study,) = site.studies()
    runner = runner_of(site)
    commit = runner.run(job_for(site, study.study_id))

    with site.database.write() as connection:
        commit(connection)
        ((_, analysis),) = jobs.analyses_of(connection, study.study_id, study.version)
    assert analysis.remarks == ("3 slices, (3.0, 0.5, 0.75)",)
    site.close()


def test_a_study_of_more_frames_than_can_be_told_is_refused_in_words_and_harms_no_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent / "support"))
    site = Site(tmp_path / "h")
    runner = runner_of(site)
    # Enhanced objects of as many frames as the parser reads the places of.
    huge, small = (open_study_of(site, objects) for objects in (20, 1))

    with pytest.raises(InputError, match="a message holds 16 MiB") as caught:
        runner.run(job_for(site, huge))
    assert (caught.value.code, caught.value.retryable) == ("task_too_large", False)
    assert "split" in caught.value.remedy
    (engine,) = [child for child in site.crew.living() if child.spec.kind == "engine"]

    runner.run(job_for(site, small))  # by the same process
    assert [child.pid for child in site.crew.living() if child.spec.kind == "engine"] == [engine.pid]
    site.close()


def open_study_of(site: Site, objects: int) -> str:
    """Store a study of so many enhanced objects, each of 4096 frames that say where they lie."""
    frames = tuple(
        FramePlane(
            image_position_patient=(-173.2812500001, -180.1234567891, 0.6251234567 * n),
            image_orientation_patient=AXIAL,
        )
        for n in range(MAX_FRAMES)
    )
    with site.database.write() as connection:
        study_id = studies.open_study(
            connection,
            grouping_key=f"dicom:1.2.{objects}",
            study_instance_uid=f"1.2.{objects}",
            pseudonym="P-1",
            patient_key="d" * 64,
            source="inbox",
            facts=StudyFacts(),
            identity=PatientIdentity(),
        )
        names = [Sighting("inbox", f"{n}.dcm", b"", 1, 1) for n in range(objects)]
        for number, file_id in enumerate(ledger.begin_claims(connection, names)):
            header = InstanceHeader(
                kind=FileKind.DICOM,
                sop_instance_uid=f"1.2.{objects}.1.{number}",
                series_instance_uid=f"1.2.{objects}.{number}",
                rows=8,
                columns=8,
                frames=MAX_FRAMES,
                geometry=PlaneGeometry(pixel_spacing=(0.5, 0.5), frames=frames, frames_placed="each"),
            )
            sha256, size = site.objects.write_bytes(f"{objects} {number}".encode())
            new = studies.NewInstance(file_id, sha256, size, header)
            studies.add_instances(connection, study_id, 1, [new])
    return study_id
