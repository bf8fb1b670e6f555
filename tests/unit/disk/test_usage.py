"""Counting what lies below folders, a little at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from clinic_ai.disk.usage import Counting, Tally, tally_of, walk


def test_a_walk_counts_files_and_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "one").write_bytes(b"123")
    (tmp_path / "a" / "b" / "two").write_bytes(b"45")
    os.utime(tmp_path / "a" / "one", (100.0, 100.0))
    (tmp_path / "outside").symlink_to("/usr")
    *_, last = walk(tmp_path / "a")
    assert last == Tally(2, 5, 100.0)
    *_, with_link = walk(tmp_path)
    assert with_link.files == 3
    assert with_link.size_bytes == 5 + len("/usr")


def test_a_folder_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert [*walk(tmp_path / "gone")] == [Tally()]
    assert tally_of(tmp_path / "gone") == Tally()


def test_tallies_add_up() -> None:
    assert Tally(1, 2, 30.0) + Tally(3, 4, 20.0) == Tally(4, 6, 20.0)
    assert Tally(1, 2, 30.0) + Tally() == Tally(1, 2, 30.0)
    assert Tally() + Tally() == Tally()


def test_a_count_goes_on_where_it_stopped() -> None:
    done = []

    def works() -> Iterator[None]:
        for number in range(5):
            done.append(number)
            yield

    counting = Counting(works)
    ends = [counting.advance(0.0) for _ in range(6)]
    assert ends == [False] * 5 + [True]
    assert done == [0, 1, 2, 3, 4]
    assert counting.advance(60.0)  # the next round, in one go
    assert len(done) == 10
