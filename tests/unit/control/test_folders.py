"""Inboxes, imports and exports over the sockets: what they answer, and to whom."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from control_room import Room

from clinic_ai.control import door
from clinic_ai.control.folder_client import FolderClient
from clinic_ai.control.folder_views import ImportFile, ImportOrder, encoded
from clinic_ai.control.views import Role
from clinic_ai.errors import ClinicError, Conflict, NotAllowed, NotFound
from clinic_ai.settings import InboxSettings
from clinic_ai.store import changes, studies
from clinic_ai.store.objects import ObjectStore

SCAN = b"\x7fELF" + bytes(124) + b"DICM" + b"scan" * 1000


@pytest.fixture
def client(room: Room) -> Iterator[FolderClient]:
    with FolderClient(room.home) as made:
        yield made


def as_role(monkeypatch: pytest.MonkeyPatch, role: Role) -> None:
    monkeypatch.setattr(door, "role_of", lambda *_: role)


def order(files: int = 1) -> ImportOrder:
    return ImportOrder(source="cd 1", listing="a" * 64, files=files, size_bytes=4)


def row(name: bytes, content: bytes) -> ImportFile:
    return ImportFile(name=encoded(name), size_bytes=len(content), mtime_ns=5)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def lying(room: Room) -> list[Path]:
    return [path for path in room.home.imports.rglob("*") if path.is_file()]


def actions(room: Room) -> list[str]:
    with room.database.read() as connection:
        return [change.action for change in changes.after(connection, 0, limit=1000)]


# ---------------------------------------------------------------- inboxes


def test_an_inbox_says_how_it_stands(room: Room, client: FolderClient) -> None:
    room.shared.settings = room.shared.settings.model_copy(
        update={"inbox": (InboxSettings(name="room 1", owner="Radiology, 4711"),)}
    )
    (room.home.inbox / "a.dcm").write_bytes(b"x")
    room.look()
    (found,) = client.inboxes()
    assert (found.name, found.path, found.online, found.sentence) == ("room 1", str(room.home.inbox), True, "")
    assert (found.waiting, found.owner, found.quiet_s) == (1, "Radiology, 4711", 5.0)
    assert found.oldest_at == (room.home.inbox / "a.dcm").stat().st_ctime
    assert found.file_system.startswith("the disk of the home (")
    (room.home.inbox / "a.dcm").unlink()
    room.home.inbox.rmdir()
    room.look()
    (found,) = client.inboxes()
    assert not found.online
    assert found.sentence == "The inbox room 1 cannot be read: No such file or directory."
    (alert,) = client.alerts()
    assert alert.remedy.endswith("Radiology, 4711 looks after it.")


def test_only_an_administrator_accepts_another_file_system_and_only_where_there_is_one(
    room: Room, client: FolderClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.look()
    with pytest.raises(Conflict, match="Nothing is to be accepted"):
        client.accept_inbox("inbox", "stick (tmpfs)")
    with pytest.raises(NotFound):
        client.accept_inbox("other", "stick (tmpfs)")
    as_role(monkeypatch, Role.CLINICIAN)
    with pytest.raises(NotAllowed):
        client.accept_inbox("inbox", "stick (tmpfs)")


# ---------------------------------------------------------------- imports


def test_a_file_is_received_whole(room: Room, client: FolderClient, monkeypatch: pytest.MonkeyPatch) -> None:
    as_role(monkeypatch, Role.TECHNICIAN)
    begun = client.begin_import(order())
    content = bytes(range(256)) * 20_000  # larger than a request may be elsewhere, and in many pieces
    pieces = (content[start : start + 70_000] for start in range(0, len(content), 70_000))
    client.send_file(begun.import_id, row(b"a/\xff", content), sha256(content), pieces)
    (place,) = lying(room)
    assert place.read_bytes() == content
    assert client.here_already(begun.import_id, [row(b"b", b"x"), row(b"a/\xff", content)]) == {1}
    state = client.end_import(begun.import_id, 1, 0)
    assert (state.pending, state.source, state.fates) == (True, "cd 1", {})
    assert {"import.begun", "import.sent"} <= set(actions(room))


def test_what_is_not_as_announced_is_refused_and_nothing_of_it_stays(room: Room, client: FolderClient) -> None:
    begun = client.begin_import(order())
    with pytest.raises(ClinicError, match="not the bytes that were announced"):
        client.send_file(begun.import_id, row(b"a", b"scan"), sha256(b"scam"), [b"scan"])
    with pytest.raises(ClinicError, match="cannot be imported"):
        client.send_file(begun.import_id, row(b"../../a", b"scan"), sha256(b"scan"), [b"scan"])
    with pytest.raises(NotFound, match="started again meanwhile"):
        client.send_file("I-AAAAAAAA", row(b"a", b"scan"), sha256(b"scan"), [b"scan"])
    ingest = room.shared.settings.ingest.model_copy(update={"max_file_mb": 1})
    room.shared.settings = room.shared.settings.model_copy(update={"ingest": ingest})
    large = b"x" * ((1 << 20) + 1)
    with pytest.raises(ClinicError, match="larger than"):
        client.send_file(begun.import_id, row(b"a", large), sha256(large), [large])
    assert lying(room) == []


def test_a_sender_that_goes_away_leaves_nothing(room: Room, client: FolderClient) -> None:
    begun = client.begin_import(order())

    class ScratchError(Exception):
        pass

    def scratched() -> Iterator[bytes]:
        yield b"sc"
        raise ScratchError

    with pytest.raises(ScratchError):
        client.send_file(begun.import_id, row(b"a", b"scan"), sha256(b"scan"), scratched())
    client.send_file(begun.import_id, row(b"b", b"scan"), sha256(b"scan"), [b"scan"])
    for _ in range(200):
        if [path.name for path in lying(room)] == ["b"]:
            break
        client.status()
    assert [path.name for path in lying(room)] == ["b"]


def test_a_full_disk_is_said_before_a_byte_is_read(room: Room, client: FolderClient) -> None:
    begun = client.begin_import(order())
    disk = room.shared.settings.disk.model_copy(update={"reserve_mb": 1 << 40})
    room.shared.settings = room.shared.settings.model_copy(update={"disk": disk})
    with pytest.raises(ClinicError, match="MiB free") as refused:
        client.send_file(begun.import_id, row(b"a", b"scan"), sha256(b"scan"), [b"scan"])
    assert refused.value.remedy
    assert lying(room) == []


def test_nothing_comes_in_by_the_socket_that_only_reads(room: Room) -> None:
    with FolderClient(room.home, monitor=True) as monitor, pytest.raises(NotAllowed, match="only reads"):
        monitor.begin_import(order())


@pytest.mark.parametrize("digest", ["", "sha-256", "sha-256=:xx:", "md5=:AAAA:", "sha-256=:AAAA:"])
def test_a_file_without_its_hash_is_not_taken(room: Room, client: FolderClient, digest: str) -> None:
    begun = client.begin_import(order())
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(room.home.control_socket))) as raw:
        answer = raw.put(
            f"http://x/v1/imports/{begun.import_id}/files",
            params={"name": encoded(b"a"), "mtime_ns": 1},
            headers={"Repr-Digest": digest},
            content=b"scan",
        )
    assert answer.status_code == 422
    assert lying(room) == []


# ---------------------------------------------------------------- exports


@pytest.fixture
def study_id(room: Room) -> str:
    """A study whose one original is in the store."""
    made = room.add_study(state="DONE")
    digest, size = ObjectStore(room.home.objects).write_bytes(SCAN)
    with room.database.write() as connection:
        connection.exec_driver_sql("UPDATE instances SET sha256 = ?, size_bytes = ?", (digest, size))
    return made


def test_a_clinician_gets_the_originals_under_names_of_ours(
    room: Room, client: FolderClient, study_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_role(monkeypatch, Role.CLINICIAN)
    view = client.export_study(study_id)
    ((place, digest),) = [(row.place, row.sha256) for row in view.originals]
    assert place == "series-01/0001.dcm"
    assert b"".join(client.original(study_id, digest)) == bytes(128) + SCAN[128:]
    assert "study.exported" in actions(room)
    with pytest.raises(NotFound):
        b"".join(client.original(study_id, "0" * 64))
    with pytest.raises(NotFound):
        client.export_study("S-20261121-NOTHERE0")


def test_nobody_else_gets_them_and_not_by_the_socket_that_only_reads(
    room: Room, client: FolderClient, study_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = client.export_study(study_id).originals[0].sha256
    with FolderClient(room.home, monitor=True) as monitor, pytest.raises(NotAllowed, match="control socket only"):
        b"".join(monitor.original(study_id, digest))
    as_role(monkeypatch, Role.TECHNICIAN)
    for ask in (lambda: client.export_study(study_id), lambda: b"".join(client.original(study_id, digest))):
        with pytest.raises(NotAllowed, match="clinician"):
            ask()


def test_originals_that_were_removed_to_make_room_are_not_promised(
    room: Room, client: FolderClient, study_id: str
) -> None:
    with room.database.write() as connection:
        connection.exec_driver_sql("UPDATE studies SET originals_removed_at = 1.0")
    with pytest.raises(Conflict, match="removed to make room"):
        client.export_study(study_id)
    with room.database.read() as connection:
        assert studies.get_study(connection, study_id).study_id == study_id
