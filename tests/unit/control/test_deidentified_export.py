"""De-identified copies over the sockets: to whom, of what, and under which names; made by the real child."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

import marked
import pytest
from control_room import Room
from PIL import Image

from clinic_ai.control import door
from clinic_ai.control.folder_client import FolderClient
from clinic_ai.control.views import Role
from clinic_ai.domain import FileKind, InstanceHeader
from clinic_ai.errors import Conflict, NotAllowed, NotFound
from clinic_ai.store import changes
from clinic_ai.store.objects import ObjectStore

STUDY = "S-20261121-NOTHERE0"


@pytest.fixture
def client(room: Room) -> Iterator[FolderClient]:
    with FolderClient(room.home) as made:
        yield made


def study_of(room: Room, content: bytes, kind: FileKind = FileKind.DICOM) -> tuple[str, str]:
    """Store a study of one original; return its id and the hash of the original."""
    study_id = room.add_study(state="DONE")
    sha256, size = ObjectStore(room.home.objects).write_bytes(content)
    header = InstanceHeader(kind=kind, frames=1).model_dump_json()
    with room.database.write() as connection:
        connection.exec_driver_sql(
            "UPDATE instances SET sha256 = ?, size_bytes = ?, header = ? WHERE study_id = ?",
            (sha256, size, header, study_id),
        )
    return study_id, sha256


def dicom(**more: object) -> bytes:
    stream = io.BytesIO()
    marked.image(**more).save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def picture() -> bytes:
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E] = marked.MARK
    Image.new("L", (8, 8)).save(stream, "PNG", exif=exif)
    return stream.getvalue()


def actions(room: Room) -> list[str]:
    with room.database.read() as connection:
        return [change.action for change in changes.after(connection, 0, limit=1000)]


def test_a_clinician_gets_copies_that_the_audit_tells_from_originals(
    room: Room, client: FolderClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "role_of", lambda *_: Role.CLINICIAN)
    study_id, sha256 = study_of(room, dicom(PatientSex="F", PatientAge="067Y", StationName=marked.MARK))
    view = client.deidentify_study(study_id)
    assert not re.search("station|sex|groups", view.model_dump_json(exclude={"copies", "folder"}))
    ((place, size),) = [(row.place, row.size_bytes) for row in view.copies]
    content = b"".join(client.copy(study_id, sha256))
    assert (place, size) == ("series-01/0001.dcm", len(content))
    assert marked.traces(content) == []
    assert b"D-" in content
    assert not re.search(b"station [0-9a-f]|067Y", content)
    assert "study.exported_deidentified" in actions(room)
    assert "study.exported" not in actions(room)


def test_nobody_else_gets_them_and_not_by_the_socket_that_only_reads(
    room: Room, client: FolderClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    study_id, sha256 = study_of(room, dicom())
    with FolderClient(room.home, monitor=True) as monitor:
        with pytest.raises(NotAllowed, match="only reads"):
            monitor.deidentify_study(study_id)
        with pytest.raises(NotAllowed, match="control socket only"):
            b"".join(monitor.copy(study_id, sha256))
    monkeypatch.setattr(door, "role_of", lambda *_: Role.TECHNICIAN)
    for ask in (lambda: client.deidentify_study(study_id), lambda: b"".join(client.copy(study_id, sha256))):
        with pytest.raises(NotAllowed, match="clinician"):
            ask()


def test_what_has_no_safe_copy_is_not_given_in_its_place(room: Room, client: FolderClient) -> None:
    cases = ((dicom(BurnedInAnnotation="YES"), "burnt in"), (dicom(SOPClassUID="1.2.3.4"), "no image"))
    for content, reason in cases:
        study_id, sha256 = study_of(room, content)
        for ask in (
            lambda s=study_id: client.deidentify_study(s),
            lambda s=study_id, h=sha256: list(client.copy(s, h)),
        ):
            with pytest.raises(Conflict, match=reason):
                ask()
    assert "study.exported_deidentified" not in actions(room)


def test_only_originals_of_the_study_have_copies_there(room: Room, client: FolderClient) -> None:
    study_id, _ = study_of(room, dicom())
    _, other = study_of(room, dicom(InstanceNumber=2))
    for ask in (lambda: list(client.copy(study_id, other)), lambda: client.deidentify_study(STUDY)):
        with pytest.raises(NotFound):
            ask()


def test_copies_of_originals_that_were_removed_are_not_promised(room: Room, client: FolderClient) -> None:
    study_id, _ = study_of(room, dicom())
    with room.database.write() as connection:
        connection.exec_driver_sql("UPDATE studies SET originals_removed_at = 1.0")
    with pytest.raises(Conflict, match="removed to make room"):
        client.deidentify_study(study_id)


def test_folders_are_named_after_the_pseudonym_and_what_they_hold(room: Room, client: FolderClient) -> None:
    first, again, later = (study_of(room, dicom(InstanceNumber=n))[0] for n in (1, 1, 2))
    names = [client.deidentify_study(study_id).folder for study_id in (first, again, later)]
    assert names[0] == names[1] != names[2]
    assert len({name.rpartition("-")[0] for name in names}) == 1  # one patient
    assert all(name.startswith("D-") for name in names)
    unnamed, sha256 = study_of(room, picture(), FileKind.PNG)
    view = client.deidentify_study(unnamed)
    assert view.folder.startswith("images-")
    assert [row.place for row in view.copies] == ["series-01/0001.png"]
    assert [note.code for note in view.look_at] == ["burned_in_possible"]
    assert marked.traces(b"".join(client.copy(unnamed, sha256))) == []
