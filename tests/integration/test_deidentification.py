"""De-identified copies as the daemon gets them: real children, good and bad ones, and plugins that ask for copies."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import marked
import pydicom
import pytest
from copies import open_deidentifier
from intake_site import Site
from scans import write_ct_slice

from clinic_ai import deidentification
from clinic_ai.analyses import AnalyseRunner
from clinic_ai.contract import PluginManifest
from clinic_ai.deidentification import Deidentifier
from clinic_ai.domain import Analysis, JobKind
from clinic_ai.engines import Engines, EngineSettings
from clinic_ai.errors import ChildRefused, InputError
from clinic_ai.guard.client import Guard
from clinic_ai.home import Home, init_home
from clinic_ai.processes import Child, ChildSpec, Crew
from clinic_ai.store import jobs
from clinic_ai.store.database import Database
from clinic_ai.training.registry import Registry

CHILDREN = str(Path(__file__).parent / "children")
SUPPORT = str(Path(__file__).parent.parent / "support")


class MoodyCrew(Crew):
    """Starts the moody child in place of the real one."""

    def start(self, spec: ChildSpec) -> Child:
        environment = (*spec.environment, ("PYTHONPATH", CHILDREN))
        return super().start(replace(spec, module="moody_deidentifier", environment=environment))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return init_home(tmp_path / "home")


@pytest.fixture
def database(home: Home) -> Iterator[Database]:
    database = Database(home.database)
    database.open()
    yield database
    database.close()


@pytest.fixture
def crew() -> Iterator[Crew]:
    crew = Crew()
    yield crew
    crew.close()


@pytest.fixture
def moody(home: Home, database: Database) -> Iterator[Deidentifier]:
    crew = MoodyCrew()
    yield open_deidentifier(home, database, crew)
    crew.close()


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class TestChildren:
    @pytest.mark.parametrize(
        "mood", ["KILL", "HANG", "RAISE", "OTHER FILE", "OTHER BYTES", "LINK", "NOTHING", "NAMED", "STATION"]
    )
    def test_one_bad_file_costs_itself(
        self, moody: Deidentifier, home: Home, tmp_path: Path, mood: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(deidentification, "_BATCH_TIMEOUT_S", 2.0)
        monkeypatch.setattr(deidentification, "_ONE_FILE_TIMEOUT_S", 2.0)
        originals = {}
        for number in range(4):
            path = tmp_path / str(number)
            path.write_text(mood if number == 2 else f"good {number}")
            originals[sha256(path)] = path
        bad = sha256(tmp_path / "2")
        found = moody.copies(originals)
        assert list(found) == list(originals) or set(found) == set(originals)
        for original, copy in found.items():
            if original == bad:
                assert copy.sha256 is None
                assert copy.problem is not None
                assert copy.problem.code == "deidentifier_failed"
            else:
                assert copy.sha256 is not None
                assert moody.objects.path(copy.sha256).read_bytes() == b"copy of " + original.encode()
        assert not list(home.jobs.iterdir())

    def test_a_full_disk_is_nobodys_fault(self, moody: Deidentifier, tmp_path: Path) -> None:
        path = tmp_path / "a"
        path.write_text("NO ROOM")
        with pytest.raises(ChildRefused) as error:
            moody.copies({sha256(path): path})
        assert error.value.code == "disk_full"

    def test_copies_are_made_once_and_made_again_when_they_are_gone(
        self, home: Home, database: Database, crew: Crew, tmp_path: Path
    ) -> None:
        path = marked.write(marked.image(), tmp_path / "a")
        originals = {sha256(path): path}
        maker = open_deidentifier(home, database, crew)
        (copy,) = maker.copies(originals).values()
        assert copy.sha256 is not None
        place = maker.objects.path(copy.sha256)
        assert marked.traces(place.read_bytes()) == []
        (pid,) = [child.pid for child in crew.living()]
        assert maker.copies(originals) == {sha256(path): copy}
        place.unlink()
        assert maker.copies(originals) == {sha256(path): copy}
        assert place.exists()
        assert [child.pid for child in crew.living()] == [pid]
        maker.child.end_if_idle(3600)
        assert crew.living()
        maker.child.end_if_idle(-1)
        assert not crew.living()

    def test_another_site_and_another_profile_give_other_copies(
        self, home: Home, database: Database, crew: Crew, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = marked.write(marked.image(), tmp_path / "a")
        originals = {sha256(path): path}
        (here,) = open_deidentifier(home, database, crew).copies(originals).values()
        elsewhere = Database(init_home(tmp_path / "other").database)
        elsewhere.open()
        (there,) = open_deidentifier(Home(tmp_path / "other"), elsewhere, crew).copies(originals).values()
        elsewhere.close()
        assert here.sha256 != there.sha256
        assert here.header is not None
        assert there.header is not None
        assert here.header.identity != there.header.identity
        assert here.header.study_instance_uid != there.header.study_instance_uid
        monkeypatch.setattr(deidentification, "DEIDENTIFICATION_PROFILE", deidentification.DEIDENTIFICATION_PROFILE + 1)
        path.unlink()  # so that making it anew fails
        (anew,) = open_deidentifier(home, database, crew).copies(originals).values()
        assert anew.problem is not None
        assert anew.problem.code == "unreadable"


# ---------------------------------------------------------------- plugins


ASKING = PluginManifest(
    name="curious",
    version="1",
    summary="Tells all that it was shown.",
    engine="curious_engine:CuriousEngine",
    needs_model=False,
    memory_mb=256,
    timeout_s=60,
    deidentified=True,
)


def analysed(site: Site, manifest: PluginManifest) -> Analysis:
    """Let the plugin analyse the only study of the site; return what is stored of it."""
    (study,) = site.studies()
    manifests = {manifest.name: manifest}
    settings = EngineSettings(memory_mb=400, threads=1, idle_s=3600, restart_cap=2, restart_window_s=60, rest_s=3600)
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
            connection, kind=JobKind.ANALYSE, study_id=study.study_id, version=study.version, plugin=manifest.name
        )
        job = jobs.get_job(connection, job_id)
    commit = runner.run(job)
    with site.database.write() as connection:
        commit(connection)
        ((_, analysis),) = jobs.analyses_of(connection, study.study_id, study.version)
    return analysis


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("PYTHONPATH", SUPPORT)
    site = Site(tmp_path / "h")
    yield site
    site.close()


def drop_slices(site: Site, *, burned_in: bool = False) -> list[str]:
    """Drop three marked slices of one study; return the hashes of their files."""
    hashes = []
    for number, height in enumerate([6.0, 0.0, 3.0], 1):
        path = site.home.inbox / f"{number}.dcm"
        write_ct_slice(path, seed=number, study=f"{marked.ROOT}.1", instance=number, side=8)
        dataset = pydicom.dcmread(path)
        dataset.PatientID, dataset.PatientName = f"{marked.MARK}-{marked.NUMBER}", f"{marked.MARK}^Ada"
        dataset.StudyDescription = dataset.SeriesDescription = dataset.StationName = f"{marked.MARK} thorax"
        dataset.StudyDate = f"{marked.DAY}05"
        dataset.FrameOfReferenceUID = f"{marked.ROOT}.2"
        dataset.ImagePositionPatient = [0, 0, height]
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.PixelSpacing = [0.5, 0.75]
        if burned_in and number == 1:
            dataset.BurnedInAnnotation = "YES"
        dataset.save_as(path)
        hashes.append(sha256(path))
    return hashes


def test_a_plugin_that_asks_sees_copies_and_answers_about_the_originals(site: Site) -> None:
    hashes = drop_slices(site, burned_in=True)
    site.settle(3)
    analysis = analysed(site, ASKING)
    *shown, remark = analysis.remarks
    told = "\n".join(shown)
    assert marked.traces(told.encode()) == []
    assert "'spacing': (3.0, 0.5, 0.75)" in told  # geometry is what it was
    assert told.count("burnt in") == 1
    assert {refusal.instance_sha256 for refusal in analysis.refusals} == set(hashes)
    assert all(refusal.sentence == "The file holds a pseudonym." for refusal in analysis.refusals)
    assert remark == "1 of 3 de-identified images have text burnt in."


def test_a_plugin_that_does_not_ask_sees_the_originals(site: Site) -> None:
    drop_slices(site)
    site.settle(3)
    analysis = analysed(site, ASKING.model_copy(update={"deidentified": False}))
    assert all(refusal.sentence == "The file holds a name." for refusal in analysis.refusals)
    assert marked.traces("\n".join(analysis.remarks).encode())


def test_what_has_no_copy_is_refused_and_never_shown(site: Site) -> None:
    hashes = drop_slices(site)
    report = site.home.inbox / "report.dcm"
    pdf = pydicom.dcmread(site.home.inbox / "1.dcm")
    pdf.SOPClassUID = pdf.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.104.1"
    pdf.SOPInstanceUID = pdf.file_meta.MediaStorageSOPInstanceUID = f"{marked.ROOT}.77"
    pdf.save_as(report)
    refused = sha256(report)
    site.settle(4)
    analysis = analysed(site, ASKING)
    by_image = {refusal.instance_sha256: refusal for refusal in analysis.refusals}
    assert set(by_image) == {*hashes, refused}
    assert by_image[refused].code == "not_deidentified"
    assert "takes de-identified images only" in by_image[refused].sentence
    assert "\n".join(analysis.remarks).count("'path'") == 3


def test_a_study_of_which_nothing_can_be_copied(site: Site) -> None:
    path = site.home.inbox / "a.dcm"
    write_ct_slice(path, seed=1, side=8)
    dataset = pydicom.dcmread(path)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.104.1"
    dataset.save_as(path)
    site.settle(1)
    with pytest.raises(InputError, match="takes de-identified images only") as error:
        analysed(site, ASKING)
    assert error.value.remedy
