"""Objects nobody needs, and what is counted on the way."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence

import pytest
from shelf import Shelf
from sqlalchemy import Connection, text

from clinic_ai.disk.garbage import StoreCount, sweep_job_directories
from clinic_ai.disk.usage import Class
from clinic_ai.store import audit, references
from clinic_ai.store.references import Kind

AT_ONCE = -60.0
"""A grace that makes garbage of what was adopted just now."""


def collect(store: Shelf, grace_s: float = AT_ONCE) -> StoreCount:
    count = StoreCount(store.database, store.objects, grace_s=grace_s)
    for _ in count.work():
        pass
    assert count.complete
    return count


def test_only_what_nobody_needs_goes_and_only_when_it_is_old(store: Shelf) -> None:
    store.add_study([b"original"], results=[b"a result"])
    orphan, copy, arriving = store.keep(b"orphan", b"a copy", b"arriving")
    store.add_copy(b"original", b"a copy")
    store.add_copy(b"of a folder", b"another copy")
    with store.database.write() as connection:
        connection.execute(
            text(
                "INSERT INTO files (source, name, raw_name, size_bytes, mtime_ns, sha256, fate, seen_at)"
                " VALUES ('inbox', 'a', 'a', 1, 1, :sha, 'CLAIMED', 1.0)"
            ),
            {"sha": arriving},
        )
    young = collect(store, grace_s=3600.0)
    assert young.collected_objects == 0
    assert young.tally(Class.ORIGINALS).files == 5  # what is not known to be garbage yet counts too

    old = collect(store)
    assert (old.collected_objects, old.collected_bytes) == (2, len(b"orphan") + len(b"another copy"))
    assert not store.objects.has(orphan)
    assert all(map(store.objects.has, (*store.keep(b"original", b"a result"), copy, arriving)))
    with store.database.read() as connection:
        assert audit.first_break(connection) is None
        details = (
            connection.execute(text("SELECT details FROM audit WHERE action = 'objects.collected'")).scalars().all()
        )
    assert {"bytes": 6, "objects": 1} in map(json.loads, details)


def test_what_is_adopted_while_the_collector_looks_stays(store: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report makes the same bytes again, and will commit them, just after the collector asked who needs them."""
    (orphan,) = store.keep(b"orphan")
    ask = references.needed

    def needed(connection: Connection, hashes: Sequence[str]) -> dict[str, Kind]:
        answer = ask(connection, hashes)
        asked_at = time.time()
        while time.time() < asked_at + 0.05:  # longer than a tick of the clock that file systems use
            os.sched_yield()
        store.keep(b"orphan")
        return answer

    while time.time() < os.stat(store.objects.path(orphan)).st_ctime + 0.05:
        os.sched_yield()
    with monkeypatch.context() as patch:
        patch.setattr(references, "needed", needed)
        assert collect(store, grace_s=0.0).collected_objects == 0
    assert store.objects.has(orphan)
    while time.time() < os.stat(store.objects.path(orphan)).st_ctime + 0.05:
        os.sched_yield()
    assert collect(store, grace_s=0.0).collected_objects == 1


def test_what_was_stored_is_counted_by_what_it_is_needed_as(store: Shelf) -> None:
    store.add_study([b"123", b"4567"], results=[b"89"])
    count = collect(store)
    assert count.originals_bytes() == 7
    assert (count.tally(Class.ORIGINALS).files, count.tally(Class.RESULTS).size_bytes) == (2, 2)
    store.keep(b"just came")
    assert count.originals_bytes() == 7 + len(b"just came")


def test_nothing_is_said_before_all_was_counted(store: Shelf) -> None:
    store.add_study([b"123"])
    count = StoreCount(store.database, store.objects)
    work = count.work()
    next(work)
    assert not count.complete
    assert count.originals_bytes() is None


def test_a_slice_of_many_objects_is_counted_in_turns(store: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    store.add_study([bytes([number]) for number in range(9)])
    (place,) = {store.objects.path(sha256).parent for sha256 in store.keep(b"\x00")}
    for number in range(9):
        (place / f"{number:062x}").write_bytes(b"x")
    monkeypatch.setattr(references, "MANY", 4)
    count = StoreCount(store.database, store.objects, grace_s=3600.0)
    turns = sum(1 for _ in count.work())
    assert turns > 256 + 9
    assert count.tally(Class.ORIGINALS).files == 18


def test_what_an_attempt_could_not_remove_is_swept_but_not_under_a_job_at_work(store: Shelf) -> None:
    store.add_study(job="DONE")
    store.add_study(job="LEASED")
    for name in ("J-0001", "J-0002", "deidentify-x"):
        (store.home.jobs / name).mkdir()
        (store.home.jobs / name / "map.png").write_bytes(b"of a patient")
    assert sweep_job_directories(store.database, store.home.jobs) == 0  # they are young
    assert sweep_job_directories(store.database, store.home.jobs, grace_s=AT_ONCE) == 2
    assert [place.name for place in store.home.jobs.iterdir()] == ["J-0002"]


def test_a_job_directory_that_goes_while_it_is_looked_at_stops_nothing(
    store: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("J-0001", "J-0002"):
        (store.home.jobs / name).mkdir()
    listed = list(store.home.jobs.iterdir())
    listed[0].rmdir()
    monkeypatch.setattr(type(store.home.jobs), "iterdir", lambda _: iter(listed))
    assert sweep_job_directories(store.database, store.home.jobs, grace_s=AT_ONCE) == 1
    assert not listed[1].exists()
