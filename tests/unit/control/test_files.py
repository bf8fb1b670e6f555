"""Files over the API: what is shown of them, who may decide about those in quarantine, and how that is told."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from control_room import Room

from clinic_ai.control import people
from clinic_ai.control.client import Client
from clinic_ai.control.file_views import AcceptOrder, DiscardOrder
from clinic_ai.control.views import Role
from clinic_ai.domain import FileDecision
from clinic_ai.errors import ClinicError, Conflict, NotAllowed, NotFound
from clinic_ai.ingest.assemble import SAME_UID
from clinic_ai.store import audit


@pytest.fixture
def client(room: Room) -> Iterator[Client]:
    with room.client() as made:
        yield made


def as_role(monkeypatch: pytest.MonkeyPatch, role: Role) -> None:
    monkeypatch.setattr("clinic_ai.control.door.role_of", lambda *_: role)


def test_a_file_says_where_it_lies_and_what_may_be_decided(room: Room, client: Client) -> None:
    number = room.quarantine_file(b"half a scan")
    found = client.file(number)
    assert (found.file.fate, found.file.reason_code) == ("QUARANTINED", "damaged")
    with open(found.place, "rb") as file:
        assert file.read() == b"half a scan"
    assert [(choice.decision, choice.option) for choice in found.choices] == [(FileDecision.AGAIN, "")]
    assert not found.conflict
    with pytest.raises(NotFound):
        client.file(number + 1)


def test_a_stored_file_lies_in_the_store_and_nothing_is_to_be_decided(room: Room, client: Client) -> None:
    room.add_study()
    found = client.file(1)
    assert found.place == str(room.home.objects / found.file.sha256[:2] / found.file.sha256[2:])
    assert found.choices == ()


def test_files_are_listed_by_fate_source_and_study(room: Room, client: Client) -> None:
    study_id = room.add_study(source="mr room")
    number = room.quarantine_file(b"odd", study_id=study_id, code=SAME_UID)
    assert [row.file_id for row in client.files(source="mr room").files] == [1]
    assert [row.file_id for row in client.files(source="ct room").files] == [number]
    assert [row.file_id for row in client.files(study_id=study_id).files] == [number, 1]
    assert [row.file_id for row in client.files(fates=("QUARANTINED",), study_id=study_id).files] == [number]


def test_a_decision_is_made_in_the_name_of_the_person(room: Room, client: Client) -> None:
    number = room.quarantine_file(b"odd")
    decided = client.accept_files(AcceptOrder(files=(number,)))
    assert decided.files == (number,)
    row = client.file(number).file
    assert (row.fate, row.decision, row.decided_by) == ("CLAIMED", "again", client.status().person)
    assert [alert.code for alert in client.alerts()] == []
    with pytest.raises(Conflict, match="CLAIMED"):
        client.accept_files(AcceptOrder(files=(number,)))


def test_discarding_removes_the_bytes_and_keeps_the_reason_out_of_the_audit(room: Room, client: Client) -> None:
    number = room.quarantine_file(b"odd")
    place = client.file(number).place
    client.discard_files(DiscardOrder(files=(number,), reason="test image of Mrs Doe"))
    assert not os.path.exists(place)
    found = client.file(number)
    assert (found.file.fate, found.place, found.choices) == ("DISCARDED", "", ())
    assert found.file.reason == "It is damaged. Discarded: test image of Mrs Doe"
    with room.database.read() as connection:
        rows = list(connection.exec_driver_sql("SELECT action, subject, details FROM audit"))
        assert audit.first_break(connection) is None
    assert ("file.discard", f"file {number}") in [(row.action, row.subject) for row in rows]
    assert "Doe" not in " ".join(row.details for row in rows)


@pytest.mark.parametrize("decision", [d for d in FileDecision if d not in {FileDecision.AGAIN, FileDecision.DISCARD}])
def test_what_belongs_to_whom_only_clinicians_decide(
    room: Room, client: Client, monkeypatch: pytest.MonkeyPatch, decision: FileDecision
) -> None:
    study_id = room.add_study()
    number = room.quarantine_file(b"odd", study_id=study_id, code=SAME_UID)
    as_role(monkeypatch, Role.TECHNICIAN)
    with pytest.raises(NotAllowed, match="clinician"):
        client.accept_files(AcceptOrder(files=(number,), decision=decision))
    with pytest.raises(NotAllowed, match="clinician"):
        client.discard_files(DiscardOrder(files=(number,), reason="wrong"))
    assert client.file(number).file.fate == "QUARANTINED"


def test_a_technician_may_have_a_file_judged_again(room: Room, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    number = room.quarantine_file(b"odd")
    as_role(monkeypatch, Role.TECHNICIAN)
    assert client.accept_files(AcceptOrder(files=(number,))).files == (number,)


def test_nothing_is_decided_on_the_socket_that_only_reads(room: Room) -> None:
    number = room.quarantine_file(b"odd")
    with room.client(monitor=True) as client:
        assert client.file(number).file.fate == "QUARANTINED"
        with pytest.raises(NotAllowed):
            client.accept_files(AcceptOrder(files=(number,)))


def test_an_order_without_files_is_told(client: Client) -> None:
    with pytest.raises(ClinicError, match="No file is named"):
        client.accept_files(AcceptOrder())


def test_an_unknown_decision_and_discarding_by_accepting_are_refused(room: Room, client: Client) -> None:
    number = room.quarantine_file(b"odd")
    with pytest.raises(ClinicError):
        client.accept_files(AcceptOrder(files=(number,), decision=FileDecision.DISCARD))
    assert client.file(number).file.fate == "QUARANTINED"
    assert people.user_name(os.geteuid()) == client.status().person
