"""Receiving the files of a medium: whole or not at all, under the name of the medium, and not twice."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clinic_ai.disk.room import Room
from clinic_ai.errors import HomeError, InputError, NotFound
from clinic_ai.ingest import imports as imports_module
from clinic_ai.ingest.imports import MAX_AT_ONCE, Imports, Listed, imported
from clinic_ai.ingest.watch import Inbox
from clinic_ai.store import imports as store_imports
from clinic_ai.store import ledger
from clinic_ai.store.database import Database
from clinic_ai.store.ledger import Fate, Outcome, Sighting

LISTING = hashlib.sha256(b"a medium").hexdigest()


class Table:
    """Imports into a folder, with a real database beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = Database(folder / "clinic.db")
        self.database.open()
        self.received = 0
        self.reserve = 0
        self.imports = self.start()

    def start(self) -> Imports:
        imports = Imports(
            folder=self.folder / "imports",
            database=self.database,
            room=Room(self.folder, lambda: self.reserve),
            max_file_bytes=lambda: 100,
            on_received=self._count,
        )
        imports.sweep()
        return imports

    def _count(self) -> None:
        self.received += 1

    def begin(self) -> str:
        return self.imports.begin("cd", LISTING, 2, 20, "anna").import_id

    def send(self, import_id: str, name: bytes, content: bytes, *, announced: bytes | None = None) -> None:
        said = content if announced is None else announced
        file = Listed(name, len(said), 12_345)
        arrival = self.imports.receive(import_id, file, hashlib.sha256(said).hexdigest())
        arrival.write(content)
        arrival.keep()

    def lying(self) -> list[str]:
        root = self.folder / "imports"
        return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Table]:
    table = Table(tmp_path)
    yield table
    table.database.close()


def test_a_file_gets_its_name_with_the_time_it_has_on_the_medium(table: Table) -> None:
    import_id = table.begin()
    table.send(import_id, b"DICOM/SER 1/IM1", b"scan")
    (place,) = table.lying()
    assert place == f"cd/{import_id}/DICOM/SER 1/IM1"
    lying = table.folder / "imports" / place
    assert (lying.read_bytes(), lying.stat().st_mtime_ns, table.received) == (b"scan", 12_345, 1)
    assert table.imports.state(import_id).waiting
    (inbox,) = imported(table.folder / "imports", [Inbox("cd", Path("/x"), 5.0, modality="DX", priority=3)])
    assert (inbox.source, inbox.root, inbox.whole) == ("cd", table.folder / "imports" / "cd", True)
    assert (inbox.modality, inbox.priority, inbox.settle_s) == ("DX", 3, 0.0)


@pytest.mark.parametrize("content", [b"scam", b"sca", b"scan and more"])
def test_other_bytes_than_announced_are_nothing(table: Table, content: bytes) -> None:
    import_id = table.begin()
    with pytest.raises(InputError, match="not the bytes that were announced"):
        table.send(import_id, b"a", content, announced=b"scan")
    assert (table.lying(), table.received) == ([], 0)


def test_what_was_given_up_is_nothing(table: Table) -> None:
    import_id = table.begin()
    arrival = table.imports.receive(import_id, Listed(b"a", 4, 0), "0" * 64)
    arrival.write(b"sc")
    arrival.give_up()
    assert table.lying() == []


def test_a_crash_in_the_middle_leaves_nothing_half_received(table: Table) -> None:
    import_id = table.begin()
    arrival = table.imports.receive(import_id, Listed(b"a", 4, 0), "0" * 64)
    arrival.write(b"sc")
    assert imported(table.folder / "imports", []) == []  # nothing looks into the folder of what arrives
    table.start()
    assert table.lying() == []


@pytest.mark.parametrize(
    "name",
    [
        b"../a",
        b"/etc/a",
        b"a/../../b",
        b"a//b",
        b"./a",
        b"a\0b",
        b"x" * 256,
        b"d/" * 60 + b"a",
        b"y" * 200 + b"/a" * 2000,
    ],
)
def test_no_name_leads_out_of_the_folder(table: Table, name: bytes) -> None:
    import_id = table.begin()
    with pytest.raises(InputError, match="cannot be imported"):
        table.send(import_id, name, b"scan")
    assert table.lying() == []


def test_too_large_a_file_and_a_full_disk_are_said_before_a_byte_is_written(table: Table) -> None:
    import_id = table.begin()
    with pytest.raises(InputError, match="at most"):
        table.send(import_id, b"a", b"x" * 101)
    table.reserve = 1 << 60
    with pytest.raises(HomeError):
        table.send(import_id, b"a", b"x")
    with pytest.raises(HomeError):
        table.begin()
    assert table.lying() == []


def test_the_same_medium_is_the_same_import_and_tells_what_is_here(table: Table) -> None:
    import_id = table.begin()
    files = [Listed(name, 4, 12_345) for name in (b"taken", b"lying", b"new", b"vanished")]
    table.send(import_id, b"lying", b"scan")
    with table.database.write() as connection:
        for name, fate in ((b"taken", Fate.QUARANTINED), (b"vanished", Fate.VANISHED)):
            raw_name = f"{import_id}/".encode() + name
            (number,) = ledger.begin_claims(connection, [Sighting("cd", "", raw_name, 4, 12_345)])
            ledger.decide(connection, [Outcome(number, fate, "why", "Because.")])
        ledger.begin_claims(connection, [Sighting("cd", "", b"I-OTHER/new", 4, 12_345)])
        ledger.begin_claims(connection, [Sighting("ct", "", f"{import_id}/new".encode(), 4, 12_345)])
    table.imports = table.start()
    with pytest.raises(NotFound, match="knows no import"):
        table.imports.here_already(import_id, files)
    assert table.begin() == import_id
    assert table.imports.here_already(import_id, files) == [0, 1]
    changed = [Listed(b"taken", 5, 12_345), Listed(b"lying", 4, 1)]
    assert table.imports.here_already(import_id, changed) == []
    summary = table.imports.state(import_id).summary
    assert summary.fates == {Fate.QUARANTINED: 1, Fate.VANISHED: 1}
    assert {(remark.fate, remark.sentence, remark.files) for remark in summary.remarks} == {
        (Fate.QUARANTINED, "Because.", 1),
        (Fate.VANISHED, "Because.", 1),
    }


def test_folders_go_when_nothing_lies_in_them(table: Table) -> None:
    import_id = table.begin()
    table.send(import_id, b"DICOM/SER1/IM1", b"scan")
    (place,) = table.lying()
    (table.folder / "imports" / place).unlink()  # ingest took it
    assert not table.imports.state(import_id).waiting
    assert [path.name for path in (table.folder / "imports").iterdir()] == [".arriving"]


def test_a_file_that_is_taken_at_once_is_received_all_the_same(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ingest takes it, and its folder is removed as empty, before the folder is synced."""
    import_id = table.begin()
    sync = imports_module.fsync_directory

    def late(folder: Path) -> None:
        for name in table.lying():
            (table.folder / "imports" / name).unlink()
        table.imports.tidy()
        sync(folder)

    monkeypatch.setattr(imports_module, "fsync_directory", late)
    table.send(import_id, b"A/1", b"one")
    assert (table.received, table.lying()) == (1, [])


def test_nobody_waits_to_write_while_the_ledger_is_read_for_an_import(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = store_imports.files_below
    written = []

    def slow(*arguments: Any) -> list[store_imports.Known]:
        found = read(*arguments)
        with table.database.write() as connection:
            written.append(ledger.begin_claims(connection, [Sighting("ct", "a", b"a", 1, 2)]))
        return found

    monkeypatch.setattr(store_imports, "files_below", slow)
    table.begin()
    assert written == [[1]]


def test_one_medium_under_two_sources_is_two_imports(table: Table) -> None:
    first = table.imports.begin("cd", LISTING, 1, 4, "anna").import_id
    second = table.imports.begin("stick", LISTING, 1, 4, "ben").import_id
    table.send(first, b"a", b"scan")
    assert table.lying() == [f"cd/{first}/a"]
    assert table.imports.here_already(first, [Listed(b"a", 4, 12_345)]) == [0]
    assert table.imports.here_already(second, [Listed(b"a", 4, 12_345)]) == []
    assert [table.imports.state(one).source for one in (first, second)] == ["cd", "stick"]


def test_imports_that_nobody_ends_are_forgotten_but_not_what_they_sent(table: Table) -> None:
    import_id = table.begin()
    table.send(import_id, b"a", b"scan")
    for number in range(MAX_AT_ONCE):
        table.imports.begin(f"cd {number}", LISTING, 1, 4, "ben")
    with pytest.raises(NotFound, match="many others"):
        table.imports.state(import_id)
    assert table.begin() == import_id
    assert table.imports.here_already(import_id, [Listed(b"a", 4, 12_345)]) == [0]
