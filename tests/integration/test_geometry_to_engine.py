"""Slices dropped into an inbox reach the engine of a plugin as a volume."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest
from copies import open_deidentifier
from intake_site import Site
from scans import write_ct_slice

from clinic_ai.analyses import AnalyseRunner
from clinic_ai.contract import PluginManifest
from clinic_ai.domain import JobKind
from clinic_ai.engines import Engines, EngineSettings
from clinic_ai.guard.client import Guard
from clinic_ai.store import jobs
from clinic_ai.training.registry import Registry

PLUGIN = PluginManifest(
    name="volumes",
    version="1",
    summary="Remarks on volumes.",
    needs_model=False,
    memory_mb=200,
    timeout_s=20.0,
    engine="volume_engine:VolumeEngine",
)


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
    manifests = {PLUGIN.name: PLUGIN}
    settings = EngineSettings(memory_mb=300, threads=1, idle_s=3600, restart_cap=2, restart_window_s=60, rest_s=3600)
    runner = AnalyseRunner(
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
    with site.database.write() as connection:
        job_id = jobs.add_job(
            connection, kind=JobKind.ANALYSE, study_id=study.study_id, version=study.version, plugin=PLUGIN.name
        )
        job = jobs.get_job(connection, job_id)

    commit = runner.run(job)

    with site.database.write() as connection:
        commit(connection)
        ((_, analysis),) = jobs.analyses_of(connection, study.study_id, study.version)
    assert analysis.remarks == ("3 slices, (3.0, 0.5, 0.75)",)
    site.close()
