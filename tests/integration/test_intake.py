"""From a dropped file to a closed study, with the real parser child and the real database."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from intake_site import Site
from PIL import Image
from scans import write_ct_slice

from clinic_ai.disk.room import Shortage
from clinic_ai.domain import CloseCode, Fate, FileDecision
from clinic_ai.errors import NotFound
from clinic_ai.ingest import intake, lookout
from clinic_ai.store import alerts, audit, ledger, studies


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "h")
    yield site
    site.close()


def test_shuffled_slices_become_one_study_closed_for_a_reason(site: Site) -> None:
    for instance in (3, 1, 2):
        write_ct_slice(site.home.inbox / f"{instance}.dcm", seed=1, study="1.2.3", instance=instance)
    files = site.settle(3)
    (study,) = site.studies()
    assert study.close_code is CloseCode.QUIET
    assert study.closed_reason == "nothing new arrived for 0.1 s, 3 instances, numbered without gaps"
    assert (study.study_instance_uid, study.facts.modalities, study.facts.slices) == ("1.2.3", ("CT",), 3)
    assert study.identity.patient_id == "PH-0001"
    assert study.pseudonym.startswith("P-")
    with site.database.read() as connection:
        instances = studies.instances_of(connection, study.study_id, 1)
        assert audit.first_break(connection) is None
    assert [instance.header.instance_number for instance in instances] == [1, 2, 3]
    assert all(site.objects.verify(instance.sha256) for instance in instances)
    assert {row.study_id for row in files.values()} == {study.study_id}
    assert os.listdir(site.home.inbox) == os.listdir(site.home.spool) == []
    assert site.closed == 1


def test_a_late_slice_makes_a_second_version_and_a_resend_makes_nothing(site: Site, tmp_path: Path) -> None:
    write_ct_slice(tmp_path / "1.dcm", seed=1, study="1.2.3", instance=1)
    write_ct_slice(tmp_path / "2.dcm", seed=1, study="1.2.3", instance=2)
    shutil.copy(tmp_path / "1.dcm", site.home.inbox)
    site.settle(1)
    shutil.copy(tmp_path / "2.dcm", site.home.inbox)
    site.settle(2)
    (study,) = site.studies()
    with site.database.read() as connection:
        versions = studies.versions_of(connection, study.study_id)
    assert [(version.version, version.state) for version in versions] == [(1, "SUPERSEDED"), (2, "CLOSED")]
    assert study.facts.slices == 2
    for name in ("1.dcm", "2.dcm"):
        shutil.copy(tmp_path / name, site.home.inbox)
    site.settle(4)
    assert site.fates() == {Fate.STORED: 2, Fate.DUPLICATE: 2}
    assert len(site.studies()) == 1


def test_contradictions_go_to_quarantine_with_their_reason(site: Site) -> None:
    inbox = site.home.inbox
    write_ct_slice(inbox / "a.dcm", seed=1, study="1.2.3", instance=1)
    site.settle(1)
    shutil.copy(site.objects.path(site.files()[0].sha256 or ""), inbox / "changed.dcm")
    (inbox / "changed.dcm").chmod(0o600)
    changed = pydicom.dcmread(inbox / "changed.dcm")
    changed.StudyDescription = "other bytes"
    changed.save_as(inbox / "changed.dcm")
    write_ct_slice(inbox / "stranger.dcm", seed=2, study="1.2.3", instance=2)
    files = site.settle(3)
    assert files["changed.dcm"].reason_code == "same_uid_other_bytes"
    assert files["stranger.dcm"].reason_code == "other_patient"
    for name in ("changed.dcm", "stranger.dcm"):
        (place,) = site.home.quarantine.glob(f"*-{files[name].file_id}")
        reason = json.loads((place / "reason.json").read_text())
        assert reason["original_name"] == name
        assert reason["sentence"] == files[name].reason
        assert reason["remedy"]
        assert ledger_hash(place / "file") == reason["sha256"]


@pytest.mark.parametrize("together", [True, False])
def test_the_same_object_with_another_file_meta_information_is_no_contradiction(
    site: Site, tmp_path: Path, together: bool
) -> None:
    write_ct_slice(tmp_path / "a.dcm", seed=1, study="1.2.3")
    sent = pydicom.dcmread(tmp_path / "a.dcm")
    sent.preamble = b"II*\0".ljust(128, b"\0")
    sent.file_meta.SourceApplicationEntityTitle = "SCANNER"
    sent.save_as(tmp_path / "b.dcm")
    shutil.copy(tmp_path / "a.dcm", site.home.inbox)
    if not together:
        site.settle(1)
    shutil.copy(tmp_path / "b.dcm", site.home.inbox)
    site.settle(2)
    assert site.fates() == {Fate.STORED: 1, Fate.DUPLICATE: 1}
    (again,) = [row for row in site.files() if row.fate is Fate.DUPLICATE]
    (study,) = site.studies()
    assert (again.reason_code, again.study_id) == ("same_object", study.study_id)
    assert [*site.home.quarantine.iterdir()] == [*site.home.spool.iterdir()] == []
    sent.PixelData = sent.PixelData[2:] + b"\0\0"
    sent.save_as(site.home.inbox / "c.dcm")
    assert site.settle(3)["c.dcm"].reason_code == "same_uid_other_bytes"


def test_a_contradiction_that_is_sent_again_and_again_is_kept_once(site: Site, tmp_path: Path) -> None:
    write_ct_slice(site.home.inbox / "a.dcm", seed=1, study="1.2.3", instance=1)
    site.settle(1)
    write_ct_slice(tmp_path / "stranger.dcm", seed=2, study="1.2.3", instance=2)
    for number in range(3):
        shutil.copy(tmp_path / "stranger.dcm", site.home.inbox / f"{number}.dcm")
        files = site.settle(number + 2)
    assert site.fates() == {Fate.STORED: 1, Fate.QUARANTINED: 1, Fate.DUPLICATE: 2}
    assert files["2.dcm"].reason_code == "in_quarantine"
    assert f"as file {files['0.dcm'].file_id}." in files["2.dcm"].reason
    assert len([*site.home.quarantine.iterdir()]) == 1
    assert [*site.home.spool.iterdir()] == []


def test_nobody_without_a_patient_id_slips_into_the_study_of_another(site: Site) -> None:
    write_ct_slice(site.home.inbox / "a.dcm", seed=1, study="1.2.3", instance=1)
    site.settle(1)
    write_ct_slice(site.home.inbox / ".b.dcm", seed=1, study="1.2.3", instance=2)
    other = pydicom.dcmread(site.home.inbox / ".b.dcm")
    other.PatientID, other.PatientName, other.PatientBirthDate = "", "AAA^OTHER", "18500101"
    (site.home.inbox / ".b.dcm").unlink()
    other.save_as(site.home.inbox / "b.dcm")
    row = site.settle(2)["b.dcm"]
    assert (row.fate, row.reason_code) == (Fate.QUARANTINED, "other_patient")
    site.intake.decisions.accept([row.file_id], None, FileDecision.OWN_STUDY, "tester")
    site.cycle_until(lambda: len(site.studies()) == 2 and not site.receiving())
    assert {study.identity.patient_name for study in site.studies()} == {"PHANTOM^Number 1", "AAA^OTHER"}


def test_a_quarantined_file_names_who_looks_after_its_source(site: Site) -> None:
    owner = site.settings.inbox[0].model_copy(update={"owner": "Radiology desk, 4711"})
    site.settings = site.settings.model_copy(update={"inbox": (owner,)})
    (site.home.inbox / "junk").write_bytes(b"no scan")
    row = site.settle(1)["junk"]
    assert row.remedy.endswith(" Radiology desk, 4711 looks after this source.")
    (place,) = site.home.quarantine.iterdir()
    assert json.loads((place / "reason.json").read_text())["remedy"] == row.remedy


def ledger_hash(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_one_image_file_is_one_study_and_its_folders_say_what_it_shows(site: Site) -> None:
    folder = site.home.inbox / "dx" / "chest"
    folder.mkdir(parents=True)
    Image.new("L", (40, 30)).save(folder / "a.png")
    Image.new("RGB", (40, 30)).save(site.home.inbox / "b.jpg")
    site.settle(2)
    by_modality = {study.facts.modalities: study for study in site.studies()}
    assert by_modality["DX",].facts.body_parts == ("CHEST",)
    assert by_modality[()].closed_reason == "one image file is one study"
    Image.new("L", (40, 30)).save(folder / "again.png")
    assert site.settle(3)["dx/chest/again.png"].fate is Fate.DUPLICATE


def test_every_file_inside_pydicom_is_accounted_for(site: Site) -> None:
    source = Path(pydicom.__file__).parent / "data"
    shutil.copytree(source, site.home.inbox / "all")
    names = [path for path in source.rglob("*") if path.is_file()]
    files = site.settle(len(names))
    assert len(files) == len(names)
    assert set(site.fates()) <= {Fate.STORED, Fate.DUPLICATE, Fate.QUARANTINED}
    assert all(row.reason and row.remedy for row in files.values() if row.fate is Fate.QUARANTINED)
    assert len(list(site.home.quarantine.iterdir())) == site.fates()[Fate.QUARANTINED]
    assert files["all/test_files/dicomdirtests/DICOMDIR"].reason_code == "dicomdir"
    assert files["all/test_files/image_dfl.dcm"].fate is Fate.STORED
    assert files["all/test_files/rtplan.dcm"].fate is Fate.STORED
    assert not [path for path in site.home.inbox.rglob("*") if path.is_file()]
    assert os.listdir(site.home.spool) == []


def test_taking_a_persons_files_copies_them(site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "mine" / "US" / "LIVER"
    folder.mkdir(parents=True)
    Image.new("L", (10, 10)).save(folder / "a.png")
    write_ct_slice(folder / "b.dcm", seed=1)
    os.symlink(folder / "a.png", folder / "link.png")
    numbers = site.intake.take([folder], "process")
    site.intake.flush()
    assert (folder / "a.png").exists()
    assert (folder / "b.dcm").exists()
    assert [row.fate for row in sorted(site.files(), key=lambda row: row.name)] == ["STORED", "STORED", "IGNORED"]
    assert sorted(row.file_id for row in site.files()) == sorted(numbers)
    closed = {study.facts.modalities: study.closed_reason for study in site.studies()}
    assert closed == {
        ("US",): "one image file is one study",
        ("CT",): "all that was given had been read, 1 instance",
    }
    with pytest.raises(NotFound):
        site.intake.take([tmp_path / "nothing"], "process")


def test_a_file_that_cannot_be_taken_is_said_once_and_tried_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookout, "TRY_AGAIN_S", 0.0)
    in_the_way = [site.home.spool / str(number) for number in range(1, 20)]
    for place in in_the_way:
        place.mkdir()
    write_ct_slice(site.home.inbox / "a.dcm", seed=1)
    site.cycle_until(lambda: site.fates().get(Fate.IGNORED, 0) == 1)
    write_ct_slice(site.home.inbox / "b.dcm", seed=2)
    site.cycle_until(lambda: site.fates().get(Fate.IGNORED, 0) == 2)  # by then the first was tried again
    assert site.fates() == {Fate.IGNORED: 2}
    for place in in_the_way:
        place.rmdir()
    site.cycle_until(lambda: site.fates().get(Fate.STORED, 0) == 2)


def test_a_file_of_a_person_that_cannot_be_read_to_its_end_costs_no_other(site: Site, tmp_path: Path) -> None:
    write_ct_slice(tmp_path / "good.dcm", seed=1)
    site.intake.take([Path("/proc/self/mem"), tmp_path / "good.dcm"], "process")  # its first page is not mapped: EIO
    assert {row.name.rpartition("/")[2]: row.fate for row in site.files()} == {
        "mem": Fate.IGNORED,
        "good.dcm": Fate.STORED,
    }


def test_a_hard_link_is_copied_so_that_its_other_name_cannot_change_what_is_stored(site: Site, tmp_path: Path) -> None:
    write_ct_slice(tmp_path / "kept.dcm", seed=1)
    os.link(tmp_path / "kept.dcm", site.home.inbox / "a.dcm")
    site.settle(1)
    stored = site.objects.path(site.files()[0].sha256 or "")
    assert stored.stat().st_ino != (tmp_path / "kept.dcm").stat().st_ino
    assert (tmp_path / "kept.dcm").stat().st_mode & 0o200


def test_a_missing_inbox_is_said_and_comes_back(site: Site) -> None:
    site.home.inbox.rmdir()
    site.intake.cycle()
    with site.database.read() as connection:
        assert [alert.code for alert in alerts.open_alerts(connection)] == ["inbox_offline"]
    site.home.inbox.mkdir()
    site.intake.cycle()
    with site.database.read() as connection:
        assert alerts.open_alerts(connection) == []


def test_the_thread_takes_files_on_the_kernels_hint_and_stops_when_told(tmp_path: Path) -> None:
    site = Site(tmp_path / "h")
    stop = threading.Event()
    thread = threading.Thread(target=site.intake.run, args=(stop,))
    thread.start()
    try:
        Image.new("L", (10, 10)).save(site.home.inbox / "a.png")
        deadline = threading.Event()
        for _ in range(600):
            if site.closed:
                break
            deadline.wait(0.05)
        assert site.fates() == {Fate.STORED: 1}
    finally:
        stop.set()
        site.intake.wake()
        thread.join(20)
        site.close()
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EISDIR, "Is a directory", "JONES^ANNA"), "Is a directory"),
        (ValueError("JONES^ANNA"), "an error nobody foresaw (ValueError)"),
    ],
)
def test_people_are_told_when_passes_fail_for_a_reason_nobody_foresaw_but_not_its_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    site = Site(tmp_path / "h")
    stop = threading.Event()
    cycle, told = site.intake.cycle, list[str]()

    def found() -> list[str]:
        with site.database.read() as connection:
            return [alert.sentence for alert in alerts.open_alerts(connection) if alert.code == "ingest_stopped"]

    def fail_once() -> bool:
        if not told:
            told.append("")
            raise error
        told.extend(found())
        stop.set()
        return cycle()

    monkeypatch.setattr(site.intake, "cycle", fail_once)
    site.intake.run(stop)
    assert told[1:] == [f"What comes in is not filed: {words}. Nothing is lost."]
    assert found() == []  # the pass after it went well
    site.close()


def test_a_file_for_which_there_is_no_room_keeps_nobody_waiting_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(tmp_path / "h")
    write_ct_slice(tmp_path / "x", seed=1)
    os.link(tmp_path / "x", site.home.inbox / "x")  # has to be copied
    shortage = Shortage("There is no room.", "Make some.")
    monkeypatch.setattr(site.intake.room, "shortage", lambda size_bytes=0, **_: shortage if size_bytes else None)
    monkeypatch.setattr(intake, "FULL_REST_S", 1.0)
    stop, rests = threading.Event(), list[float]()

    def rest(_: threading.Event, rest_s: float) -> None:
        rests.append(rest_s)
        if len(rests) == 4:
            stop.set()

    monkeypatch.setattr(site.intake, "_rest", rest)
    site.intake.run(stop)
    assert rests == [1.0] * 4
    site.close()


def test_the_room_is_light() -> None:
    code = (
        "import sys, clinic_ai.ingest.intake;"
        "print([m for m in ('numpy','pydicom','PIL','highdicom','torch') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_bytes_in_the_spool_that_no_row_knows_are_filed_and_not_thrown_away(tmp_path: Path) -> None:
    site = Site(tmp_path / "h")
    site.close()
    write_ct_slice(site.home.spool / "7", seed=1)
    site = Site(tmp_path / "h")
    site.settle(1)
    assert site.fates() == {Fate.STORED: 1}
    with site.database.read() as connection:
        assert ledger.get_file(connection, 1).source == "recovered"
    site.close()


class StopsAtTheFirst(Site):
    """Is told to stop as soon as a study was closed, which one image file is at once."""

    def __init__(self, path: Path) -> None:
        self.stop = threading.Event()
        super().__init__(path, batch=1)

    def _count(self) -> None:
        self.stop.set()


def test_a_stop_is_heard_between_two_batches_and_leaves_the_rest_where_it_is(tmp_path: Path) -> None:
    site = StopsAtTheFirst(tmp_path / "home")
    for number in range(4):
        Image.new("L", (10 + number, 10)).save(site.home.inbox / f"{number}.png")
    site.intake.run(site.stop)
    site.close()
    assert len(list(site.home.inbox.iterdir())) == 3
