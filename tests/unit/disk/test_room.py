"""Room for what comes in: the reserve, its hysteresis, and doors shut for other reasons."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinic_ai.disk import room as module
from clinic_ai.disk.room import MIB, Room, Shortage
from clinic_ai.errors import HomeError

FULL = Shortage("The quota is used up.", "Raise it.")


class Disk:
    """A disk whose free space a test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free = 0
        monkeypatch.setattr(module, "free_bytes", lambda _: self.free)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def test_the_reserve_is_never_counted_as_room(disk: Disk, tmp_path: Path) -> None:
    room = Room(tmp_path, lambda: 100 * MIB)
    disk.free = 150 * MIB
    assert room.shortage() is None
    assert room.shortage(50 * MIB) is None
    short = room.shortage(51 * MIB)
    assert short is not None
    assert (short.free_bytes, short.needed_bytes) == (150 * MIB, 151 * MIB)
    assert "has 150 MiB free; to take in what waits it needs 151 MiB, of which 100 MiB" in short.sentence
    assert room.shortage() is None  # one file that is too large keeps no other waiting


def test_a_door_that_was_shut_opens_a_tenth_above_the_reserve(disk: Disk, tmp_path: Path) -> None:
    room = Room(tmp_path, lambda: 100 * MIB)
    answers = []
    for free in (101, 99, 101, 109, 110, 101, 100):
        disk.free = free * MIB
        answers.append(room.shortage() is None)
    assert answers == [True, False, False, False, True, True, True]


@given(st.lists(st.integers(0, 200), min_size=1), st.integers(0, 100))
def test_nothing_is_ever_let_in_below_the_reserve(frees: list[int], size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        disk, room = Disk(patch), Room(Path("/"), lambda: 100 * MIB)
        for free in frees:
            disk.free = free * MIB
            short = room.shortage(size * MIB)
            assert (short is None) <= (free - size >= 100)
            if short is not None:
                assert short.needed_bytes > short.free_bytes


def test_a_shut_room_says_why_and_a_source_may_wait_alone(disk: Disk, tmp_path: Path) -> None:
    room = Room(tmp_path, lambda: 0)
    room.shut(None, {"ct room": FULL})
    assert room.shortage(source="inbox") is None
    assert room.shortage(source="ct room") == FULL
    room.shut(FULL, {})
    with pytest.raises(HomeError, match="quota is used up") as caught:
        room.require()
    assert caught.value.remedy == "Raise it."
    room.shut(None, {})
    room.require(source="ct room")


def test_free_bytes_are_those_of_the_file_system(tmp_path: Path) -> None:
    status = os.statvfs(tmp_path)
    assert 0 <= module.free_bytes(tmp_path) <= status.f_blocks * status.f_frsize
    with pytest.raises(FileNotFoundError):
        module.free_bytes(tmp_path / "gone")
