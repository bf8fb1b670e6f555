"""What a person decides about a quarantined file, carried out by the real intake, at once and after a crash."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
import pytest
from intake_site import Site
from scans import write_ct_slice

from clinic_ai.domain import Fate, FileDecision, Instance
from clinic_ai.errors import Conflict, NotFound
from clinic_ai.ingest.quarantine import Quarantine
from clinic_ai.store import alerts, audit, ledger, studies
from clinic_ai.store.ledger import LedgerEntry

AGAIN, REPLACE, BOTH, OWN = FileDecision.AGAIN, FileDecision.REPLACE, FileDecision.BOTH, FileDecision.OWN_STUDY
STUDY = "1.2.3"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "h")
    yield site
    site.close()


def changed_copy(path: Path, target: Path, **values: object) -> None:
    """Write a copy with other header values, which leaves its UIDs as they are unless they are named."""
    scan = pydicom.dcmread(path)
    for keyword, value in values.items():
        setattr(scan, keyword, value)
    scan.save_as(target)


def conflicting(site: Site, tmp_path: Path, number: int = 1) -> tuple[str, list[LedgerEntry]]:
    """Store a study of ``number`` slices and quarantine another object for each; return study and quarantined files."""
    for instance in range(1, number + 1):
        original = tmp_path / f"{instance}.dcm"
        write_ct_slice(original, seed=1, study=STUDY, instance=instance)
        shutil.copy(original, site.home.inbox / original.name)
    site.settle(number)
    for instance in range(1, number + 1):
        changed_copy(
            tmp_path / f"{instance}.dcm", site.home.inbox / f"other{instance}.dcm", StudyDescription="corrected"
        )
    rows = site.settle(2 * number)
    (study,) = site.studies()
    return study.study_id, [rows[f"other{instance}.dcm"] for instance in range(1, number + 1)]


def decided(site: Site) -> None:
    """Make passes until nothing is on its way and no study is open."""
    site.cycle_until(lambda: not pending(site) and not site.receiving())


def pending(site: Site) -> list[LedgerEntry]:
    with site.database.read() as connection:
        return ledger.pending(connection)


def row(site: Site, number: int) -> LedgerEntry:
    with site.database.read() as connection:
        return ledger.get_file(connection, number)


def instances(site: Site, study_id: str, version: int) -> tuple[Instance, ...]:
    with site.database.read() as connection:
        return studies.instances_of(connection, study_id, version)


def open_alerts(site: Site) -> dict[tuple[str, str], str]:
    with site.database.read() as connection:
        return {(alert.code, alert.subject): alert.sentence for alert in alerts.open_alerts(connection)}


def everything_is_in_order(site: Site) -> None:
    """What versions have is whole, quarantined files have their bytes, and nothing lies in two places."""
    with site.database.read() as connection:
        assert audit.first_break(connection) is None
        rows = ledger.list_files(connection, limit=10_000)
        for study in studies.list_studies(connection, states=None, limit=1000):
            for version in studies.versions_of(connection, study.study_id):
                for instance in studies.instances_of(connection, version.study_id, version.version):
                    assert site.objects.verify(instance.sha256)
    quarantine = Quarantine(site.home.quarantine)
    for entry in rows:
        assert quarantine.holds(entry.file_id, entry.seen_at) == (entry.fate is Fate.QUARANTINED)
        assert quarantine.place(entry.file_id, entry.seen_at).exists() == (entry.fate is Fate.QUARANTINED)
        if entry.fate in {Fate.STORED, Fate.DUPLICATE}:
            assert site.objects.has(entry.sha256 or "")
    assert os.listdir(site.home.spool) == []


# ---------------------------------------------------------------- the same UID with other bytes


def test_a_replacement_makes_a_new_version_and_the_old_one_can_be_made_again(site: Site, tmp_path: Path) -> None:
    study_id, (other,) = conflicting(site, tmp_path)
    (before,) = instances(site, study_id, 1)
    site.intake.decisions.accept([other.file_id], None, REPLACE, "eva")
    decided(site)
    (after,) = instances(site, study_id, 2)
    assert instances(site, study_id, 1) == (before,)
    assert (after.sha256, after.header.sop_instance_uid) == (other.sha256, before.header.sop_instance_uid)
    stored = row(site, other.file_id)
    assert (stored.fate, stored.decision, stored.decided_by) == (Fate.STORED, "replace", "eva")
    with site.database.read() as connection:
        assert [version.state for version in studies.versions_of(connection, study_id)] == ["SUPERSEDED", "CLOSED"]
        assert studies.count_instances(connection, study_id, 2) == 1
        assert studies.count_replaced(connection, study_id, 2) == 1
    everything_is_in_order(site)


def test_a_resend_of_what_was_replaced_changes_nothing(site: Site, tmp_path: Path) -> None:
    study_id, (other,) = conflicting(site, tmp_path)
    site.intake.decisions.accept([other.file_id], None, REPLACE, "eva")
    decided(site)
    shutil.copy(tmp_path / "1.dcm", site.home.inbox / "resent.dcm")
    rows = site.settle(3)
    assert (rows["resent.dcm"].fate, rows["resent.dcm"].reason_code) == (Fate.DUPLICATE, "replaced_before")
    with site.database.read() as connection:
        assert len(studies.versions_of(connection, study_id)) == 2


def test_both_are_kept_and_the_second_is_known_by_a_uid_of_its_own(site: Site, tmp_path: Path) -> None:
    study_id, (other,) = conflicting(site, tmp_path)
    site.intake.decisions.accept([other.file_id], None, BOTH, "eva")
    decided(site)
    by_hash = {instance.sha256: instance.header for instance in instances(site, study_id, 2)}
    assert len(by_hash) == 2
    header = by_hash[other.sha256 or ""]
    assert header.sop_instance_uid.startswith("2.25.")
    assert header.own_uids == ("uid_of_other_object",)
    changed_copy(tmp_path / "1.dcm", site.home.inbox / "third.dcm", StudyDescription="a third one")
    assert site.settle(3)["third.dcm"].reason_code == "same_uid_other_bytes"
    everything_is_in_order(site)


def test_all_files_of_a_study_are_accepted_in_one_order(site: Site, tmp_path: Path) -> None:
    """A series in which every slice has one and the same SOP Instance UID."""
    for instance in range(1, 5):
        path = tmp_path / f"{instance}.dcm"
        write_ct_slice(path, seed=1, study=STUDY, instance=instance)
        changed_copy(path, site.home.inbox / path.name, SOPInstanceUID="1.2.3.4")
    site.settle(4)
    (study,) = site.studies()
    assert site.fates() == {Fate.STORED: 1, Fate.QUARANTINED: 3}
    assert open_alerts(site)["files_in_conflict", study.study_id].startswith("3 files")
    assert len(site.intake.decisions.accept([], study.study_id, BOTH, "eva")) == 3
    decided(site)
    assert site.fates() == {Fate.STORED: 4}
    assert len({i.header.sop_instance_uid for i in instances(site, study.study_id, 2)}) == 4
    assert open_alerts(site) == {}
    everything_is_in_order(site)


def test_two_that_replace_the_same_object_leave_the_one_with_the_higher_number(site: Site, tmp_path: Path) -> None:
    study_id, (first,) = conflicting(site, tmp_path)
    changed_copy(tmp_path / "1.dcm", site.home.inbox / "third.dcm", StudyDescription="a third one")
    second = site.settle(3)["third.dcm"]
    site.intake.decisions.accept([second.file_id, first.file_id], None, REPLACE, "eva")
    decided(site)
    assert [i.sha256 for i in instances(site, study_id, 2)] == [second.sha256]
    everything_is_in_order(site)


def test_a_discarded_file_is_gone_and_its_row_says_who_and_why(site: Site, tmp_path: Path) -> None:
    study_id, (other,) = conflicting(site, tmp_path)
    assert open_alerts(site) == {
        ("files_in_conflict", study_id): f"1 file that contradicts study {study_id} waits for a decision."
    }
    site.intake.decisions.discard([other.file_id], None, "a test of the scanner", "eva")
    found = row(site, other.file_id)
    assert (found.fate, found.decided_by, found.decision) == (Fate.DISCARDED, "eva", "discard")
    assert found.reason == f"{other.reason} Discarded: a test of the scanner"
    assert open_alerts(site) == {}
    decided(site)
    assert len(instances(site, study_id, 1)) == 1
    assert len(site.studies()) == 1
    everything_is_in_order(site)


# ---------------------------------------------------------------- another patient


def test_another_patients_files_become_a_study_of_their_own_and_later_ones_join_it(site: Site, tmp_path: Path) -> None:
    for seed, instance in ((1, 1), (2, 2), (2, 3)):
        path = tmp_path / f"{seed}-{instance}.dcm"
        write_ct_slice(path, seed=seed, study=STUDY, instance=instance)
        shutil.copy(path, site.home.inbox)
    rows = site.settle(3)
    strangers = [rows["2-2.dcm"], rows["2-3.dcm"]]
    assert [stranger.reason_code for stranger in strangers] == ["other_patient"] * 2
    site.intake.decisions.accept([strangers[0].file_id, strangers[1].file_id], None, OWN, "eva")
    decided(site)
    one, other = sorted(site.studies(), key=lambda study: study.identity.patient_id)
    assert (one.identity.patient_id, one.study_instance_uid) == ("PH-0001", STUDY)
    assert other.identity.patient_id == "PH-0002"
    assert other.study_instance_uid.startswith("2.25.")
    found = instances(site, other.study_id, 1)
    assert {i.header.study_instance_uid for i in found} == {other.study_instance_uid}
    assert {i.header.own_uids for i in found} == {("study_of_other_patient",)}
    # A late slice of the second patient, and a resend of everything.
    write_ct_slice(site.home.inbox / "late.dcm", seed=2, study=STUDY, instance=9)
    for path in tmp_path.glob("*.dcm"):
        shutil.copy(path, site.home.inbox / f"again {path.name}")
    rows = site.settle(7)
    assert site.fates() == {Fate.STORED: 4, Fate.DUPLICATE: 3}
    assert rows["late.dcm"].study_id == other.study_id
    everything_is_in_order(site)


# ---------------------------------------------------------------- all others


def test_a_file_is_judged_again_after_a_limit_was_raised(site: Site) -> None:
    tight = site.settings
    site.settings = tight.model_copy(update={"ingest": tight.ingest.model_copy(update={"max_pixels": 1})})
    write_ct_slice(site.home.inbox / "a.dcm", seed=1)
    (found,) = site.settle(1).values()
    assert found.reason_code == "too_many_pixels"
    assert list(open_alerts(site)) == [("files_quarantined", "inbox")]
    site.intake.decisions.accept([found.file_id], None, AGAIN, "eva")
    decided(site)
    found = row(site, found.file_id)
    assert (found.fate, found.decision, found.decided_by) == (Fate.QUARANTINED, "", "")
    assert list(open_alerts(site)) == [("files_quarantined", "inbox")]
    everything_is_in_order(site)
    site.settings = tight
    site.intake.decisions.accept([found.file_id], None, AGAIN, "eva")
    decided(site)
    assert site.fates() == {Fate.STORED: 1}
    assert open_alerts(site) == {}
    everything_is_in_order(site)


def test_one_alert_tells_of_many_files_and_counts_down(site: Site) -> None:
    for number in range(5):
        (site.home.inbox / f"{number}.txt").write_text(f"no scan {number}")
    rows = site.settle(5)
    numbers = sorted(entry.file_id for entry in rows.values())
    sentence = "{} from inbox could not be used and {} in quarantine for a decision."
    assert open_alerts(site) == {("files_quarantined", "inbox"): sentence.format("5 files", "wait")}
    site.intake.decisions.discard(numbers[:4], None, "not scans", "eva")
    assert open_alerts(site) == {("files_quarantined", "inbox"): sentence.format("1 file", "waits")}
    site.intake.decisions.discard(numbers[4:], None, "not scans", "eva")
    assert open_alerts(site) == {}


# ---------------------------------------------------------------- what cannot be decided


def refused(site: Site, numbers: list[int], decision: FileDecision, study_id: str | None = None) -> str:
    before = site.fates()
    with pytest.raises((Conflict, NotFound)) as caught:
        site.intake.decisions.accept(numbers, study_id, decision, "eva")
    assert site.fates() == before
    assert caught.value.remedy
    return caught.value.message


def test_what_cannot_be_decided_says_why_and_decides_nothing(site: Site, tmp_path: Path) -> None:
    study_id, (first, second) = conflicting(site, tmp_path, number=2)
    assert "no file number 99" in refused(site, [first.file_id, 99], REPLACE)
    assert "--replace or --both" in refused(site, [first.file_id], AGAIN)
    assert "--replace or --both" in refused(site, [first.file_id], OWN)
    assert "No file that contradicts" in refused(site, [], OWN, study_id)
    site.intake.decisions.discard([second.file_id], None, "wrong", "adam")
    assert "DISCARDED, as adam decided" in refused(site, [first.file_id, second.file_id], REPLACE)
    stored = min(row.file_id for row in site.files())
    assert "is STORED" in refused(site, [stored], AGAIN)
    with pytest.raises(Conflict):
        site.intake.decisions.discard([stored], None, "wrong", "eva")
    site.intake.decisions.accept([first.file_id], None, REPLACE, "eva")
    assert "CLAIMED, as eva decided" in refused(site, [first.file_id], BOTH)


def test_a_file_that_somebody_took_away_can_only_be_discarded(site: Site, tmp_path: Path) -> None:
    _, (other,) = conflicting(site, tmp_path)
    Quarantine(site.home.quarantine).file(other.file_id, other.seen_at).unlink()
    assert "took them away" in refused(site, [other.file_id], REPLACE)
    site.intake.decisions.discard([other.file_id], None, "gone", "eva")
    assert row(site, other.file_id).fate is Fate.DISCARDED


def test_a_file_taken_away_after_it_was_accepted_has_vanished(site: Site, tmp_path: Path) -> None:
    _, (other,) = conflicting(site, tmp_path)
    site.intake.decisions.accept([other.file_id], None, REPLACE, "eva")
    Quarantine(site.home.quarantine).file(other.file_id, other.seen_at).unlink()
    decided(site)
    assert row(site, other.file_id).fate is Fate.VANISHED


def test_a_file_that_changed_in_quarantine_is_not_what_the_person_decided_about(site: Site, tmp_path: Path) -> None:
    study_id, (other,) = conflicting(site, tmp_path)
    changed_copy(
        tmp_path / "1.dcm",
        Quarantine(site.home.quarantine).file(other.file_id, other.seen_at),
        StudyDescription="edited in place",
    )
    site.intake.decisions.accept([other.file_id], None, REPLACE, "eva")
    decided(site)
    found = row(site, other.file_id)
    assert (found.fate, found.reason_code) == (Fate.QUARANTINED, "changed_in_quarantine")
    assert len(instances(site, study_id, 1)) == 1
    site.intake.decisions.accept([other.file_id], None, AGAIN, "eva")
    decided(site)
    assert row(site, other.file_id).reason_code == "same_uid_other_bytes"
    everything_is_in_order(site)


# ---------------------------------------------------------------- a crash in the middle


def accepted_and_nothing_done(site: Site, other: LedgerEntry) -> None:
    """The crash came right after the decision."""


def bytes_in_the_spool_and_reason_left(site: Site, other: LedgerEntry) -> None:
    Quarantine(site.home.quarantine).file(other.file_id, other.seen_at).rename(site.home.spool / str(other.file_id))


def bytes_in_both(site: Site, other: LedgerEntry) -> None:
    """A quarantine on a disk of its own: copied, and not yet removed."""
    shutil.copy(
        Quarantine(site.home.quarantine).file(other.file_id, other.seen_at), site.home.spool / str(other.file_id)
    )


def linked_into_the_store(site: Site, other: LedgerEntry) -> None:
    bytes_in_the_spool_and_reason_left(site, other)
    site.objects.adopt_file(site.home.spool / str(other.file_id), other.sha256 or "")


@pytest.mark.parametrize(
    "crash", [accepted_and_nothing_done, bytes_in_the_spool_and_reason_left, bytes_in_both, linked_into_the_store]
)
def test_an_accepted_file_is_carried_out_wherever_the_crash_left_it(
    tmp_path: Path, crash: Callable[[Site, LedgerEntry], None]
) -> None:
    site = Site(tmp_path / "h")
    study_id, (other,) = conflicting(site, tmp_path)
    site.intake.decisions.accept([other.file_id], None, REPLACE, "eva")
    crash(site, other)
    site.close()
    site = Site(tmp_path / "h")
    decided(site)
    assert [i.sha256 for i in instances(site, study_id, 2)] == [other.sha256]
    everything_is_in_order(site)
    site.close()


def test_the_bytes_of_a_discarded_file_go_at_the_next_start_if_a_crash_kept_them(tmp_path: Path) -> None:
    site = Site(tmp_path / "h")
    _, (other,) = conflicting(site, tmp_path)
    with site.database.write() as connection:
        ledger.discard(connection, ledger.get_file(connection, other.file_id), "wrong", "eva")
    assert Quarantine(site.home.quarantine).holds(other.file_id, other.seen_at)
    site.close()
    site = Site(tmp_path / "h")
    everything_is_in_order(site)
    site.close()


# ---------------------------------------------------------------- duplicates


def test_a_resend_of_everything_makes_no_version_and_keeps_no_study_open(site: Site, tmp_path: Path) -> None:
    for instance in (1, 2):
        write_ct_slice(tmp_path / f"{instance}.dcm", seed=1, study=STUDY, instance=instance)
        shutil.copy(tmp_path / f"{instance}.dcm", site.home.inbox)
    site.settle(2)
    for name in ("1.dcm", "2.dcm"):
        shutil.copy(tmp_path / name, site.home.inbox / f"again {name}")
        shutil.copy(tmp_path / name, site.home.inbox / f"and again {name}")
    site.settle(6)
    assert site.fates() == {Fate.STORED: 2, Fate.DUPLICATE: 4}
    (study,) = site.studies()
    assert (study.version, study.state) == (1, "CLOSED")
    everything_is_in_order(site)


def test_resends_do_not_keep_an_open_study_waiting(tmp_path: Path) -> None:
    site = Site(tmp_path / "h", quiet_period_s=60.0)
    write_ct_slice(tmp_path / "1.dcm", seed=1, study=STUDY)
    shutil.copy(tmp_path / "1.dcm", site.home.inbox)
    site.cycle_until(lambda: site.fates().get(Fate.STORED, 0) == 1)
    (before,) = site.studies()
    shutil.copy(tmp_path / "1.dcm", site.home.inbox)
    site.cycle_until(lambda: site.fates().get(Fate.DUPLICATE, 0) == 1)
    (after,) = site.studies()
    assert after.last_instance_at == before.last_instance_at
    site.close()


def test_the_same_bytes_in_two_studies_are_two_instances_and_one_object(site: Site, tmp_path: Path) -> None:
    """Without UIDs the folder tells studies apart, and a folder may be copied."""
    write_ct_slice(tmp_path / "1.dcm", seed=1)
    for folder in ("a", "b"):
        (site.home.inbox / folder).mkdir()
        changed_copy(tmp_path / "1.dcm", site.home.inbox / folder / "1.dcm", StudyInstanceUID="", SeriesInstanceUID="")
    site.settle(2)
    assert site.fates() == {Fate.STORED: 2}
    assert len(site.studies()) == 2
    assert len([path for path in site.home.objects.rglob("*") if path.is_file()]) == 1
    everything_is_in_order(site)
