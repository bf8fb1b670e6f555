"""The store of objects: what discarding respects, what is counted, what is put aside."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from clinic_ai.errors import NotFound
from clinic_ai.store.objects import SLICES, ObjectStore


@pytest.fixture
def objects(tmp_path: Path) -> ObjectStore:
    return ObjectStore(tmp_path / "objects")


def test_an_old_object_is_discarded_and_a_young_one_stays(objects: ObjectStore) -> None:
    sha256, size = objects.write_bytes(b"content")
    assert objects.discard(sha256, adopted_before=time.time() - 60) == 0
    assert objects.has(sha256)
    assert objects.discard(sha256, adopted_before=time.time() + 60) == size
    assert not objects.has(sha256)
    assert objects.discard(sha256, adopted_before=time.time() + 60) == 0


def test_adopting_what_is_there_already_renews_it(objects: ObjectStore) -> None:
    sha256, _ = objects.write_bytes(b"content")
    (before,) = objects.in_slice(sha256[:2])
    limit = before.adopted_at
    while time.time() <= limit + 0.05:  # the clock of a file system ticks every some milliseconds
        os.utime(objects.root)
    objects.write_bytes(b"content")
    (after,) = objects.in_slice(sha256[:2])
    assert after.adopted_at > limit
    assert objects.discard(sha256, adopted_before=after.adopted_at) == 0


def test_growth_is_counted_by_slice_until_it_is_taken(objects: ObjectStore) -> None:
    sha256, _ = objects.write_bytes(b"12345")
    objects.write_bytes(b"12345")  # is there already
    assert objects.growth() == 5
    assert objects.take_growth(sha256[:2]) == 5
    assert objects.growth() == 0
    objects.discard(sha256, adopted_before=time.time() + 60)
    assert objects.growth() == -5


def test_a_slice_lists_objects_only(objects: ObjectStore) -> None:
    sha256, size = objects.write_bytes(b"content")
    (objects.root / sha256[:2] / "notes.txt").write_text("no object")
    (found,) = objects.in_slice(sha256[:2])
    assert (found.sha256, found.size_bytes) == (sha256, size)
    assert all([*objects.in_slice(prefix)] == [] for prefix in SLICES if prefix != sha256[:2])


def test_a_damaged_object_makes_room_for_a_whole_one(objects: ObjectStore) -> None:
    sha256, _ = objects.write_bytes(b"content")
    place = objects.path(sha256)
    place.chmod(0o600)
    place.write_bytes(b"c0ntent")
    assert not objects.verify(sha256)
    aside = objects.set_aside(sha256)
    assert aside.read_bytes() == b"c0ntent"
    with pytest.raises(NotFound):
        objects.path(sha256)
    objects.write_bytes(b"content")
    assert objects.verify(sha256)
