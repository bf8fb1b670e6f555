"""The keeper: what it says, what it lets wait, and that it takes both back."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest
from shelf import Shelf

from clinic_ai.disk import keeper as module
from clinic_ai.disk.keeper import Keeper
from clinic_ai.disk.room import MIB, Room

PLENTY = 1 << 40


class Kept:
    """A keeper whose disk has as much free space as a test says, and which counts everything at each step."""

    def __init__(self, store: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store = store
        self.free = PLENTY
        self.opened = 0
        monkeypatch.setattr("clinic_ai.disk.room.free_bytes", lambda _: self.free)
        monkeypatch.setattr("clinic_ai.disk.retention.free_bytes", lambda _: self.free)
        monkeypatch.setattr(module, "COUNT_BUDGET_S", 60.0)
        monkeypatch.setattr(module, "COUNT_PAUSE_S", 0.0)
        monkeypatch.setattr(module, "RETENTION_PAUSE_S", 0.0)
        monkeypatch.setattr(os, "statvfs", self._statvfs)
        self.room = Room(store.home.state, lambda: store.settings.disk.reserve_mb * MIB)
        self.keeper = self.restarted()

    def restarted(self) -> Keeper:
        return Keeper(
            home=self.store.home,
            settings=lambda: self.store.settings,
            database=self.store.database,
            objects=self.store.objects,
            room=self.room,
            on_room=self._open,
            unsettled_s=-60.0,
            step_s=0.0,
        )

    def _open(self) -> None:
        self.opened += 1

    def _statvfs(self, _: object) -> Any:
        return os.statvfs_result((1, 1, PLENTY, self.free, self.free, 0, 0, 0, 0, 255))

    def steps(self, count: int = 2) -> set[tuple[str, str]]:
        for _ in range(count):
            self.keeper.step()
        return set(self.store.alerts())


@pytest.fixture
def kept(store: Shelf, monkeypatch: pytest.MonkeyPatch) -> Kept:
    return Kept(store, monkeypatch)


def test_a_disk_that_fills_up_is_told_before_anything_waits_and_once_for_each_step(kept: Kept) -> None:
    kept.store.configure(disk={"reserve_mb": 1000})
    said = []
    for free_mb in (9000, 1999, 1500, 999, 1050, 1100, 2150, 2200):
        kept.free = free_mb * MIB
        said.append({code for code, _ in kept.steps()})
    low, short = {"disk_low"}, {"disk_reserve"}
    assert said == [set(), low, low, short, short, low, low, set()]
    assert kept.store.audited("alert.raised") == ["home"] * 3
    assert kept.opened == 1


def test_an_alert_of_the_last_start_is_taken_back_by_the_next(kept: Kept) -> None:
    kept.store.configure(disk={"reserve_mb": 1000})
    kept.free = 999 * MIB
    assert kept.steps() == {("disk_reserve", "home")}
    kept.keeper = kept.restarted()
    assert kept.steps() == {("disk_reserve", "home")}
    kept.keeper, kept.free = kept.restarted(), PLENTY
    assert kept.steps() == set()


def test_originals_beyond_their_quota_make_room_and_wait_only_if_none_may_go(kept: Kept) -> None:
    store = kept.store
    store.add_study([b"1" * MIB], delivered_at=1.0)
    store.add_study([b"2" * MIB], artefacts=[("HELD", ())])
    store.add_study([b"3" * MIB], artefacts=[("HELD", ())])
    store.configure(quota={"originals_mb": 2})
    assert kept.steps(3) == set()
    assert kept.room.shortage() is None
    assert len(store.audited("study.originals_removed")) == 1

    store.configure(quota={"originals_mb": 1})
    assert kept.steps(3) == {("quota", "originals")}
    short = kept.room.shortage()
    assert short is not None
    assert "new files wait" in short.sentence
    assert "held" in short.remedy
    assert kept.keeper.state().waiting == short.sentence

    store.configure(quota={"originals_mb": 4})
    assert kept.steps() == set()
    assert kept.room.shortage() is None
    assert kept.opened == 1


def test_of_a_quarantine_beyond_its_quota_only_those_wait_who_filled_it(kept: Kept) -> None:
    store = kept.store
    store.configure(quota={"quarantine_mb": 1})
    (store.home.quarantine / "20261121-1").mkdir()
    (store.home.quarantine / "20261121-1" / "file").write_bytes(b"x" * (2 * MIB))
    store.add_quarantined(None, 2 * MIB, source="attacker")
    store.add_quarantined(None, 10, source="ct room")
    assert kept.steps() == {("quota", "quarantine")}
    assert kept.room.shortage(source="ct room") is None
    waiting = kept.room.shortage(source="attacker")
    assert waiting is not None
    assert "attacker waits" in waiting.sentence
    assert "file discard" in waiting.remedy
    assert (store.home.quarantine / "20261121-1" / "file").exists()


def test_every_class_with_a_quota_says_what_to_do(kept: Kept) -> None:
    home = kept.store.home
    for folder in (home.outbox, home.datasets, home.runs, home.models, home.backups, home.logs):
        (folder / "big").write_bytes(b"x" * (2 * MIB))
    kept.store.add_study([b"a"], results=[b"x" * (2 * MIB)])
    names = {"outbox", "datasets", "runs", "models", "backups", "logs", "results"}
    kept.store.configure(quota={f"{name}_mb": 1 for name in names})
    assert kept.steps() == {("quota", name) for name in names}
    assert kept.room.shortage() is None
    use = {row.name: row for row in kept.keeper.state().classes}
    assert use["outbox"].size_bytes == use["results"].size_bytes == 2 * MIB
    assert use["database"].size_bytes > 0
    assert kept.keeper.state().counted_at is not None


def test_objects_are_read_at_the_pace_that_was_asked_for(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    store = kept.store
    store.add_study([b"1" * 1000, b"2" * 1000])
    hashes = store.keep(b"1" * 1000, b"2" * 1000)
    for sha256 in hashes:
        place = store.objects.path(sha256)
        place.chmod(0o600)
        place.write_bytes(b"damaged")
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(module, "SLICES", tuple(sha256[:2] for sha256 in hashes))
    monkeypatch.setattr(module, "COUNT_PAUSE_S", 1e9)
    monkeypatch.setattr(module, "RETENTION_PAUSE_S", 1e9)
    kept.keeper = kept.restarted()

    def found() -> int:
        return len(store.audited("object.damaged"))

    kept.steps(6)
    assert found() == 0  # switched off
    store.configure(disk={"verify_mb_per_hour": 1})
    kept.steps(6)
    assert found() == 1  # 7 bytes read, which is 24 milliseconds' worth
    clock[0] += 1.0
    kept.steps(6)
    assert found() == 2
