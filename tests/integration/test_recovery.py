"""Each place a crash can leave the bytes of a file, and what a restart makes of it."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from intake_site import Site
from scans import write_ct_slice
from sqlalchemy.exc import OperationalError

from clinic_ai.domain import Fate, FileDecision
from clinic_ai.errors import HomeError
from clinic_ai.ingest.quarantine import Quarantine, Reason
from clinic_ai.ingest.spool import Spool
from clinic_ai.settings import InboxSettings, Settings
from clinic_ai.store import ledger
from clinic_ai.store.ledger import Outcome, Sighting

SEEN_AT = 1_700_000_000.0


class Wreck:
    """A home as a crash left it: one file, one row of the ledger."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.site = Site(path)
        self.home = self.site.home
        self.file = self.home.inbox / "a.dcm"
        write_ct_slice(self.file, seed=1)
        self.content = self.file.read_bytes()
        self.sha256 = hashlib.sha256(self.content).hexdigest()
        status = self.file.stat()
        with self.site.database.write() as c:
            sighting = Sighting("inbox", "a.dcm", b"a.dcm", status.st_size, status.st_mtime_ns)
            (self.number,) = ledger.begin_claims(c, [sighting], seen_at=SEEN_AT)

    def claimed(self) -> None:
        with self.site.database.write() as c:
            ledger.confirm_claims(c, [(self.number, self.sha256, len(self.content))])

    def reason(self, code: str) -> Reason:
        return Reason(
            code=code,
            sentence="It is broken.",
            remedy="Send it again.",
            file_number=self.number,
            original_name="a.dcm",
            source="inbox",
            sha256=self.sha256,
            size_bytes=len(self.content),
            seen_at="2023-11-14T22:13:20Z",
            quarantined_at="2023-11-14T22:13:21Z",
        )

    def restart(self) -> Site:
        self.site.close()
        self.site = Site(self.path)
        return self.site


@pytest.fixture
def wreck(tmp_path: Path) -> Iterator[Wreck]:
    wreck = Wreck(tmp_path / "h")
    yield wreck
    wreck.site.close()


def filed_once(site: Site) -> None:
    site.settle(1)
    assert site.fates() == {Fate.STORED: 1}
    assert len(site.studies()) == 1
    assert os.listdir(site.home.inbox) == os.listdir(site.home.spool) == []


def still_in_the_inbox(wreck: Wreck) -> None:
    """The crash came before the move."""


def moved(wreck: Wreck) -> None:
    wreck.file.rename(wreck.home.spool / str(wreck.number))


def copied_and_not_yet_removed(wreck: Wreck) -> None:
    shutil.copy(wreck.file, wreck.home.spool / str(wreck.number))


def copy_cut_short(wreck: Wreck) -> None:
    (wreck.home.spool / f".copy-{wreck.number}").write_bytes(wreck.content[:100])


def hashed(wreck: Wreck) -> None:
    moved(wreck)
    wreck.claimed()


def linked_into_the_store(wreck: Wreck) -> None:
    hashed(wreck)
    wreck.site.objects.adopt_file(wreck.home.spool / str(wreck.number), wreck.sha256)


def only_in_the_store(wreck: Wreck) -> None:
    linked_into_the_store(wreck)
    (wreck.home.spool / str(wreck.number)).unlink()


def reason_written_and_file_not_moved(wreck: Wreck) -> None:
    hashed(wreck)
    place = Quarantine(wreck.home.quarantine).place(wreck.number, SEEN_AT)
    place.mkdir()
    (place / "reason.json").write_text(wreck.reason("parser_timeout").model_dump_json())


@pytest.mark.parametrize(
    "state",
    [
        still_in_the_inbox,
        moved,
        copied_and_not_yet_removed,
        copy_cut_short,
        hashed,
        linked_into_the_store,
        only_in_the_store,
        reason_written_and_file_not_moved,
    ],
)
def test_goes_on_from_wherever_the_bytes_are(wreck: Wreck, state: Callable[[Wreck], None]) -> None:
    state(wreck)
    site = wreck.restart()
    filed_once(site)
    assert os.listdir(site.home.quarantine) == []


def test_a_file_that_reached_the_quarantine_before_the_crash_is_judged_again_and_lies_there(wreck: Wreck) -> None:
    wreck.file.write_text("no scan at all")
    hashed(wreck)
    quarantine = Quarantine(wreck.home.quarantine)
    quarantine.put(wreck.home.spool / str(wreck.number), SEEN_AT, wreck.reason("empty"))
    site = wreck.restart()
    site.cycle_until(lambda: bool(site.files()))
    (row,) = site.files()
    assert (row.fate, row.reason_code) == (Fate.QUARANTINED, "not_an_image")
    assert quarantine.holds(wreck.number, SEEN_AT)
    assert os.listdir(site.home.spool) == []


def test_a_file_in_spool_and_quarantine_both_is_filed_once(wreck: Wreck) -> None:
    """As a quarantine on a disk of its own leaves it: the copy was whole, and the original not yet removed."""
    hashed(wreck)
    kept = wreck.path / "kept"
    shutil.copy(wreck.home.spool / str(wreck.number), kept)
    Quarantine(wreck.home.quarantine).put(kept, SEEN_AT, wreck.reason("parser_timeout"))
    site = wreck.restart()
    filed_once(site)
    assert os.listdir(site.home.quarantine) == []


def test_a_file_that_somebody_took_back_is_said_to_be_gone(wreck: Wreck) -> None:
    wreck.file.unlink()
    (row,) = wreck.restart().files()
    assert (row.fate, row.reason_code) == (Fate.VANISHED, "gone")


def test_what_is_stored_leaves_the_spool(wreck: Wreck) -> None:
    linked_into_the_store(wreck)
    with wreck.site.database.write() as c:
        ledger.decide(c, [Outcome(wreck.number, Fate.STORED)])
    site = wreck.restart()
    assert os.listdir(site.home.spool) == []
    assert site.objects.verify(wreck.sha256)


def test_a_changed_file_in_the_inbox_is_not_taken_for_the_original_of_a_copy(wreck: Wreck) -> None:
    copied_and_not_yet_removed(wreck)
    write_ct_slice(wreck.file, seed=2)
    site = wreck.restart()
    site.settle(2)
    assert site.fates() == {Fate.STORED: 2}


def test_an_inbox_on_another_file_system(tmp_path: Path) -> None:
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system here")
    site = Site(tmp_path / "h")
    with tempfile.TemporaryDirectory(dir=shared) as name:
        site.settings = Settings(ingest=site.settings.ingest, inbox=(InboxSettings(name="far", path=name),))
        write_ct_slice(Path(name) / "a.dcm", seed=1)
        site.settle(1)
        assert os.listdir(name) == []
    filed_once(site)
    site.close()


def test_a_pass_that_fails_after_the_quarantine_took_a_file_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(tmp_path / "h")
    (site.home.inbox / "junk.txt").write_text("no scan")
    write_ct_slice(site.home.inbox / "a.dcm", seed=1)
    decide, left = ledger.decide, [1]

    def full_once(*arguments: Any) -> None:
        if left and left.pop():
            raise OperationalError("UPDATE", {}, Exception("database or disk is full"))
        decide(*arguments)

    monkeypatch.setattr(ledger, "decide", full_once)
    with pytest.raises(OperationalError):
        site.cycle_until(lambda: False)
    assert list(site.home.quarantine.glob("*/file"))
    site.settle(2)
    assert site.fates() == {Fate.STORED: 1, Fate.QUARANTINED: 1}
    assert os.listdir(site.home.spool) == []
    site.close()


def test_a_file_the_disk_cannot_read_back_holds_up_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(tmp_path / "h")
    for number in range(3):
        write_ct_slice(site.home.inbox / f"{number}.dcm", seed=number)
    sync_and_hash = Spool.sync_and_hash

    def bad_sector(spool: Spool, file_id: int) -> tuple[str, int]:
        if file_id == 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return sync_and_hash(spool, file_id)

    monkeypatch.setattr(Spool, "sync_and_hash", bad_sector)
    rows = site.settle(3)
    assert site.fates() == {Fate.STORED: 2, Fate.QUARANTINED: 1}
    (bad,) = [row for row in rows.values() if row.fate is Fate.QUARANTINED]
    assert (bad.reason_code, bool(bad.reason and bad.remedy)) == ("disk_failed", True)
    site.close()


def test_a_file_that_somebody_took_from_the_spool_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(tmp_path / "h")
    for number in range(3):
        write_ct_slice(site.home.inbox / f"{number}.dcm", seed=number)
    take = Spool.take

    def robbed(spool: Spool, *arguments: Any) -> Any:
        taken = take(spool, *arguments)
        spool.path(2).unlink(missing_ok=True)
        return taken

    monkeypatch.setattr(Spool, "take", robbed)
    with pytest.raises(FileNotFoundError):
        site.cycle_until(lambda: False)
    site.settle(3)
    assert site.fates() == {Fate.STORED: 2, Fate.VANISHED: 1}
    site.close()


def test_a_start_on_a_disk_too_full_for_a_link_goes_on_and_files_it_later(
    wreck: Wreck, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_in_the_store(wreck)
    link = os.link

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "link", full)
    site = wreck.restart()
    with pytest.raises(HomeError, match="is full"):
        site.intake.cycle()
    assert site.fates() == {Fate.CLAIMED: 1}
    monkeypatch.setattr(os, "link", link)
    filed_once(site)


def test_an_accepted_file_without_room_keeps_no_study_open(wreck: Wreck, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with the quarantine on a disk of its own, which it has to be copied from."""
    hashed(wreck)
    quarantine = Quarantine(wreck.home.quarantine)
    quarantine.put(wreck.home.spool / str(wreck.number), SEEN_AT, wreck.reason("parser_timeout"))
    with wreck.site.database.write() as c:
        ledger.decide(c, [Outcome(wreck.number, Fate.QUARANTINED, "parser_timeout")])
    site = wreck.restart()
    site.intake.decisions.accept([wreck.number], None, FileDecision.AGAIN, "ada")
    bring_back = Spool.bring_back

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Spool, "bring_back", full)
    write_ct_slice(site.home.inbox / "b.dcm", seed=2)
    failed = 0
    while not site.closed:  # else the test's time limit ends it
        try:
            site.intake.cycle()
        except HomeError:
            failed += 1
    assert failed
    assert site.fates() == {Fate.STORED: 1, Fate.CLAIMED: 1}
    monkeypatch.setattr(Spool, "bring_back", bring_back)
    site.settle(2)
    assert site.fates() == {Fate.STORED: 2}


def test_a_crash_before_a_file_of_the_spool_got_its_number_leaves_no_false_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(tmp_path / "h")
    write_ct_slice(site.home.spool / "17", seed=1)  # of a database from a backup
    site.close()
    rename = Path.rename

    def killed(place: Path, target: Path) -> Path:
        if place.name.startswith(".orphan-"):
            raise KeyboardInterrupt
        return rename(place, target)

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        Site(tmp_path / "h")
    monkeypatch.setattr(Path, "rename", rename)
    site = Site(tmp_path / "h")
    rows = site.settle(1)
    assert [row.source for row in rows.values()] == ["recovered"]
    assert site.fates() == {Fate.STORED: 1}
    site.close()
