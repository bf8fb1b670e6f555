"""What lies in an inbox, and when it has come to rest."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from privilege import ordinary

from clinic_ai.ingest import watch
from clinic_ai.ingest.watch import Entry, Hints, Inbox, Watch
from clinic_ai.settings import IngestSettings

IGNORE = watch.ignore_pattern(IngestSettings().ignore)


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    return Inbox("inbox", tmp_path, settle_s=1.0)


def look(inbox: Inbox) -> dict[bytes, Entry]:
    return {entry.raw_name: entry for entry in watch.look(inbox, IGNORE)}


def test_finds_files_in_folders_and_skips_what_the_settings_say(inbox: Inbox) -> None:
    for name in ("a.dcm", "DX/CHEST/b.png", ".hidden", "c.tmp", "d.part", ".trash/e.dcm"):
        (inbox.root / name).parent.mkdir(parents=True, exist_ok=True)
        (inbox.root / name).write_bytes(b"x")
    assert set(look(inbox)) == {b"a.dcm", b"DX/CHEST/b.png"}


def test_odd_things_are_told_apart_and_never_followed(inbox: Inbox, tmp_path: Path) -> None:
    (inbox.root / "folder.dcm").mkdir()
    os.symlink("/etc", inbox.root / "etc")
    os.symlink("/etc/hostname", inbox.root / "name.dcm")
    os.mkfifo(inbox.root / "fifo.dcm")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(inbox.root / "s"))
        found = look(inbox)
    assert {name: entry.odd for name, entry in found.items()} == {
        b"etc": "link",
        b"name.dcm": "link",
        b"fifo.dcm": "special",
        b"s": "special",
    }


def test_folders_too_deep_are_told_and_not_entered(inbox: Inbox) -> None:
    deep = inbox.root.joinpath(*["d"] * (watch.MAX_DEPTH + 1))
    deep.mkdir(parents=True)
    (deep / "x.dcm").write_bytes(b"x")
    assert [entry.odd for entry in look(inbox).values()] == ["too_deep"]


def test_paths_longer_than_the_kernel_takes_are_looked_into(inbox: Inbox) -> None:
    root, folder = os.open(inbox.root, watch.FOLDER), b""
    for _ in range(watch.MAX_DEPTH):
        inside = watch.descend(root, folder)
        os.mkdir(b"d" * 255, dir_fd=inside)
        os.close(inside)
        folder = folder + b"/" + b"d" * 255 if folder else b"d" * 255
    inside = watch.descend(root, folder)
    os.close(os.open(b"x.dcm", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=inside))
    os.close(inside)
    os.close(root)
    assert [(name.rpartition(b"/")[2], entry.odd) for name, entry in look(inbox).items()] == [(b"x.dcm", "")]


def test_a_link_that_takes_the_place_of_a_folder_further_up_is_not_followed(inbox: Inbox, tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "b").mkdir(parents=True)
    os.symlink("elsewhere", tmp_path / "a")
    root = os.open(inbox.root, watch.FOLDER)
    try:
        with pytest.raises(NotADirectoryError):
            watch.descend(root, b"a/b")
    finally:
        os.close(root)


LOOKER = """
import sys
from pathlib import Path
from clinic_ai.ingest import watch
for entry in watch.look(watch.Inbox("inbox", Path(sys.argv[1]), 1.0), watch.ignore_pattern(())):
    print(entry.name, entry.odd)
"""


def test_folders_that_the_appliance_may_not_read_or_enter_are_told(inbox: Inbox) -> None:
    for name in ("unreadable", "not to be entered"):
        (inbox.root / name).mkdir()
        (inbox.root / name / "x.dcm").write_bytes(b"x")
    (inbox.root / "unreadable").chmod(0o300)
    (inbox.root / "not to be entered").chmod(0o600)
    try:
        looked = subprocess.run(
            ordinary([sys.executable, "-c", LOOKER, str(inbox.root)]), capture_output=True, text=True, check=True
        )
    finally:
        for folder in inbox.root.iterdir():
            folder.chmod(0o700)
    assert sorted(looked.stdout.splitlines()) == ["not to be entered/x.dcm closed", "unreadable closed"]


def test_any_name_the_file_system_allows_is_found_and_can_be_shown(inbox: Inbox) -> None:
    names = [b"new\nline.dcm", b"\xff\xfe.dcm", b"\x1b[31mred.dcm", b"x" * 255, "Müller.dcm".encode()]
    for name in names:
        with open(os.path.join(os.fsencode(inbox.root), name), "wb") as file:
            file.write(b"x")
    found = look(inbox)
    assert set(found) == set(names)
    assert all(entry.name.isprintable() for entry in found.values())
    assert found["Müller.dcm".encode()].name == "Müller.dcm"


def test_a_missing_inbox_is_an_error_and_not_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(watch.look(Inbox("x", tmp_path / "gone", 1.0), IGNORE))


def entry(inbox: Inbox, name: bytes = b"a", size: int = 1, mtime: int = 1, inode: int = 1) -> Entry:
    return Entry(inbox, name, size, mtime, inode)


def rested(seen: Watch, inbox: Inbox, entries: Sequence[Entry], now: float) -> list[Entry]:
    return list(seen.look(inbox, entries, now).rested)


def test_a_file_rests_when_two_looks_far_enough_apart_agree(inbox: Inbox) -> None:
    seen = Watch()
    assert rested(seen, inbox, [entry(inbox)], 0.0) == []
    assert rested(seen, inbox, [entry(inbox)], 0.5) == []
    assert rested(seen, inbox, [entry(inbox)], 1.0) == [entry(inbox)]


def test_what_the_receiver_put_there_rests_at_once(tmp_path: Path) -> None:
    whole = Inbox("peer", tmp_path, settle_s=0.0, whole=True)
    assert rested(Watch(), whole, [entry(whole)], 0.0) == [entry(whole)]


@pytest.mark.parametrize("changed", [{"size": 2}, {"mtime": 2}, {"inode": 2}])
def test_any_change_starts_the_wait_anew(inbox: Inbox, changed: dict[str, int]) -> None:
    seen = Watch()
    seen.look(inbox, [entry(inbox)], 0.0)
    assert rested(seen, inbox, [entry(inbox, **changed)], 1.5) == []
    assert rested(seen, inbox, [entry(inbox, **changed)], 2.4) == []
    assert rested(seen, inbox, [entry(inbox, **changed)], 2.5) != []


def test_memory_is_bounded_and_freed(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "MAX_TRACKED", 3)
    seen = Watch()
    many = [entry(inbox, b"%d" % n) for n in range(5)]
    look = seen.look(inbox, many, 0.0)
    assert (len(seen), look.files, look.cut) == (3, 5, True)
    assert seen.oldest() == -math.inf  # two were not even noted
    assert len(rested(seen, inbox, many, 1.0)) == 3
    seen.forget(many[:3])
    assert not seen.look(inbox, many[3:], 2.0).cut
    assert (len(seen), seen.oldest()) == (2, 2.0)
    seen.look(inbox, [], 3.0)
    assert len(seen) == 0
    assert seen.oldest() == math.inf


def test_one_look_brings_no_more_than_it_may(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "MAX_RESTED", 2)
    seen = Watch()
    many = [entry(inbox, b"%d" % n) for n in range(3)]
    seen.look(inbox, many, 0.0)
    look = seen.look(inbox, many, 1.0)
    assert (look.rested, look.cut) == (tuple(many[:2]), True)
    seen.forget(look.rested)
    look = seen.look(inbox, many[2:], 1.1)
    assert (look.rested, look.cut) == (tuple(many[2:]), False)


def test_very_many_odd_things_come_in_several_looks_and_keep_no_file_waiting(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "MAX_ODD", 2)
    seen = Watch()
    many = [replace(entry(inbox, b"%d" % n), odd="link") for n in range(3)] + [entry(inbox)]
    first = seen.look(inbox, many, 0.0)
    assert (first.odd, first.cut, seen.oldest()) == (tuple(many[:2]), False, 0.0)
    for odd in first.odd:
        seen.leave_alone(odd, math.inf)
    second = seen.look(inbox, many, 1.0)
    assert (second.odd, second.rested) == ((many[2],), (many[3],))


def test_what_is_left_alone_is_passed_over_until_its_time_or_a_change(inbox: Inbox) -> None:
    seen = Watch()
    seen.look(inbox, [entry(inbox)], 0.0)
    seen.leave_alone(entry(inbox), until=10.0)
    assert seen.oldest() == math.inf  # nobody waits for it
    look = seen.look(inbox, [entry(inbox)], 5.0)
    assert (look.rested, look.files, seen.knows(b"a")) == ((), 1, True)
    assert rested(seen, inbox, [entry(inbox)], 10.0) == []
    assert rested(seen, inbox, [entry(inbox)], 11.0) == [entry(inbox)]
    seen.leave_alone(entry(inbox), until=100.0)
    seen.look(inbox, [entry(inbox, mtime=2)], 12.0)
    assert rested(seen, inbox, [entry(inbox, mtime=2)], 13.0) == [entry(inbox, mtime=2)]


def test_what_is_held_back_counts_as_not_at_rest_since_it_was_first_seen(inbox: Inbox) -> None:
    seen = Watch()
    seen.look(inbox, [entry(inbox)], 0.0)
    assert rested(seen, inbox, [entry(inbox)], 1.0) == [entry(inbox)]
    seen.hold(entry(inbox), until=3.0)
    assert rested(seen, inbox, [entry(inbox)], 2.0) == []
    assert seen.oldest() == 0.0
    assert rested(seen, inbox, [entry(inbox)], 3.0) == [entry(inbox)]


def test_a_file_that_never_comes_to_rest_is_no_study_on_its_way(inbox: Inbox) -> None:
    seen = Watch()
    for now in range(600):
        assert seen.look(inbox, [entry(inbox, size=now)], float(now)).newest_at > -math.inf
    assert seen.look(inbox, [entry(inbox, size=600)], 600.0).newest_at == -math.inf
    study = entry(inbox, b"b")
    assert seen.look(inbox, [entry(inbox, size=601), study], 601.0).newest_at == study.changed_at
    settled = entry(inbox, size=602)
    assert not rested(seen, inbox, [settled], 602.0)
    look = seen.look(inbox, [settled], 602.0 + inbox.settle_s)
    assert (look.rested, look.newest_at) == ((settled,), settled.changed_at)


def test_how_many_files_wait_and_since_when(inbox: Inbox) -> None:
    (inbox.root / "a.dcm").write_bytes(b"x")
    (inbox.root / "b.dcm").write_bytes(b"x")
    os.symlink("a.dcm", inbox.root / "link")
    came = min((inbox.root / name).stat().st_ctime for name in ("a.dcm", "b.dcm"))
    look = Watch().look(inbox, watch.look(inbox, IGNORE), 0.0)
    assert (look.files, look.oldest_at, [odd.odd for odd in look.odd]) == (2, came, ["link"])


def test_the_kernel_hints_at_new_files_and_not_at_our_own_looks(inbox: Inbox) -> None:
    event = threading.Event()
    hints = Hints(event)
    try:
        assert hints.watch([inbox.root])
        (inbox.root / "a.dcm").write_bytes(b"x")
        assert event.wait(10)
    finally:
        hints.close()


def test_a_folder_that_cannot_be_watched_is_admitted(tmp_path: Path) -> None:
    hints = Hints(threading.Event())
    try:
        assert not hints.watch([tmp_path / "gone"])
    finally:
        hints.close()
