"""Categories on their whole way: from a file in an inbox to what a plugin's engine is told of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import marked
import pydicom
import pytest
from copies import open_deidentifier
from intake_site import Site
from pydicom.sequence import Sequence
from scans import write_ct_slice
from school import tiny_png

from clinic_ai.analyses import AnalyseRunner
from clinic_ai.contract import PluginManifest
from clinic_ai.domain import JobKind
from clinic_ai.engines import Engines, EngineSettings
from clinic_ai.guard.client import Guard
from clinic_ai.settings import QuestionSettings
from clinic_ai.store import categories, jobs
from clinic_ai.training.registry import Registry
from clinic_ai_ultrasound.plugin import describe_plugin

SUPPORT = str(Path(__file__).parent.parent / "support")
CURIOUS = PluginManifest(
    name="curious",
    version="1",
    summary="Tells all that it was shown.",
    engine="curious_engine:CuriousEngine",
    categories=describe_plugin().categories,
    needs_model=False,
    memory_mb=256,
    timeout_s=60,
)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("PYTHONPATH", SUPPORT)
    site = Site(tmp_path / "h")
    yield site
    site.close()


def told(site: Site, manifest: PluginManifest, engines: Engines) -> list[str]:
    """Return what the engine says that it was told of the images of the only study."""
    (study,) = site.studies()
    manifests = {manifest.name: manifest}
    runner = AnalyseRunner(
        database=site.database,
        objects=site.objects,
        job_directories=site.home.jobs,
        engines=engines,
        models=Registry(site.home, site.database, manifests, site.crew),
        manifests=lambda: manifests,
        guard=Guard(site.crew, site.home.policies),
        policy_hash=lambda: "0" * 64,
        deidentifier=open_deidentifier(site.home, site.database, site.crew),
        rules=lambda: site.settings.category,
        questions=lambda: QuestionSettings(base_answers=True),
    )
    with site.database.write() as connection:
        job_id = jobs.add_job(
            connection, kind=JobKind.ANALYSE, study_id=study.study_id, version=study.version, plugin=manifest.name
        )
        job = jobs.get_job(connection, job_id)
    commit = runner.run(job)
    with site.database.write() as connection:
        commit(connection)
        analyses = dict(jobs.analyses_of(connection, study.study_id, study.version))
    return list(analyses[job_id].remarks[1:])


def engines_of(site: Site) -> Engines:
    settings = EngineSettings(memory_mb=400, threads=1, idle_s=3600, restart_cap=2, restart_window_s=60, rest_s=3600)
    return Engines(site.crew, lambda: settings)


def test_a_picture_is_of_the_category_of_its_folder_until_a_person_says_otherwise(site: Site) -> None:
    folder = site.home.inbox / "US" / "2026" / "Abodomen"
    folder.mkdir(parents=True)
    (folder / "scan.png").write_bytes(tiny_png("abdomen"))
    site.settle(1)
    engines = engines_of(site)
    (said,) = told(site, CURIOUS, engines)
    assert "'category': 'abdomen'" in said
    assert "the folder “Abodomen” it came in" in said
    (study,) = site.studies()
    with site.database.write() as connection:
        categories.choose(connection, study.study_id, "curious", "femur", by="anna")
    (said,) = told(site, CURIOUS, engines)
    assert "'category': 'femur'" in said
    assert "a person's choice" in said
    with site.database.write() as connection:
        categories.choose(connection, study.study_id, "curious", "", by="anna")
    (said,) = told(site, CURIOUS, engines)
    assert "'category': 'abdomen'" in said


def test_codes_and_words_of_a_header_say_it_and_tell_a_plugin_nothing_of_the_patient(site: Site) -> None:
    path = site.home.inbox / "nt.dcm"
    write_ct_slice(path, seed=1, study=f"{marked.ROOT}.1", side=8)
    dataset = pydicom.dcmread(path)
    dataset.Modality, dataset.SeriesDescription = "US", f"{marked.MARK} standard NT"
    code = pydicom.Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "33069-6", "LN", "Nuchal Translucency"
    dataset.ViewCodeSequence = Sequence([code])
    dataset.save_as(path)
    site.settle(1)
    (said,) = told(site, CURIOUS.model_copy(update={"deidentified": True}), engines_of(site))
    assert "'category': 'standard_nt'" in said
    assert "its view code LN 33069-6, “standard NT” in its series description" in said
    assert "'view_codes': ({'scheme': 'LN', 'value': '33069-6'" in said  # the copy keeps what tells of the view
    assert marked.MARK not in said
