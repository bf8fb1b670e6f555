"""The receiver against senders that mean harm: each loses its own connection or object, and nothing else."""

from __future__ import annotations

import select
import shutil
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom.uid import generate_uid
from raw_sender import ABORT, CALLING, REJECT, RawSender
from receiving_room import ReceivingRoom, associate, data_set, read, slices, store

from clinic_ai.domain import Fate
from clinic_ai.store import alerts
from clinic_ai.workers.receiver import WAITING

SUCCESS, OUT_OF_RESOURCES, CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xC000
TIMEOUT_S = 1.0


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReceivingRoom]:
    """A room with small limits that the tests share: a second of silence, two associations, files of 1 MiB."""
    path = tmp_path_factory.mktemp("hostile") / "h"
    with (
        pytest.MonkeyPatch.context() as patch,
        ReceivingRoom(path, ingest={"max_file_mb": 1}, timeout_s=TIMEOUT_S, max_associations=2) as room,
    ):
        patch.setattr("clinic_ai.ingest.refusals.SAY_AGAIN_S", 0.0)  # each refusal in the audit
        yield room


@pytest.fixture(autouse=True)
def unharmed(room: ReceivingRoom, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test the same child lives, a good sender is served, and nothing lies about."""
    child = room.child().pid
    yield
    seed = 1000 + sum(map(ord, request.node.name))
    room.wait(lambda: room.receiver.view().open == 0, "the end of all associations")
    assert store(room.port, read(slices(tmp_path / "good", 1, seed=seed, side=16))) == [SUCCESS]
    room.wait(lambda: room.arriving() == [] and set(room.fates()) == {Fate.STORED}, "everything stored")
    assert room.child().pid == child


def object_of(folder: Path, seed: int) -> tuple[str, bytes]:
    """Return the SOP Instance UID and the data set of a small slice."""
    (path,) = slices(folder, 1, seed=seed, side=16)
    return str(read([path])[0].SOPInstanceUID), data_set(path)


def counted(room: ReceivingRoom, action: str, reason: str) -> int:
    """Return how many times the audit tells of a refusal for this reason."""
    return sum(row["reason"] == reason for row in room.audited(action))


# ------------------------------------------------------------ connections


def _dribble(sender: RawSender, data: bytes) -> bool:
    """Send a byte every tenth of a time-out until the other side ends the connection; return whether it did."""
    try:
        for byte in data:
            if select.select([sender.socket], [], [], TIMEOUT_S / 10)[0]:
                return sender.ended()
            sender.send(bytes([byte]))
    except OSError:
        return True
    return False


@pytest.mark.parametrize("ready", [False, True], ids=["before an association", "in an association"])
def test_who_dribbles_is_cut_off(room: ReceivingRoom, ready: bool) -> None:
    with RawSender(room.port) as sender:
        if ready:
            sender.associate()
        assert _dribble(sender, struct.pack(">BxL", 4, 1000) + b"\0" * 60)


def test_connections_that_end_at_once_keep_no_place(tmp_path: Path) -> None:
    """A port scanner, say: where each kept its place for a time-out, senders would be turned away that long."""
    with ReceivingRoom(tmp_path / "h", timeout_s=600.0, max_associations=1) as patient:
        for _ in range(3 * WAITING):
            with RawSender(patient.port) as sender:
                sender.send(b"GET / HTTP/1.0\r\n\r\n")
        patient.wait(lambda: patient.receiver.view().refused >= 3 * WAITING, "the end of all connections", timeout_s=20)
        scan = read(slices(tmp_path / "ct", 1, side=16))
        patient.wait(lambda: store(patient.port, scan) == [SUCCESS], "a good sender served", timeout_s=20)


def test_who_says_nothing_is_cut_off_and_audited(room: ReceivingRoom) -> None:
    before = counted(room, "association.refused", "no_request")
    with RawSender(room.port) as sender:
        assert sender.ended()
    room.wait(lambda: counted(room, "association.refused", "no_request") == before + 1, "the refusal in the audit")


def test_more_associations_than_allowed_are_refused_and_audited(room: ReceivingRoom) -> None:
    welcome = [associate(room.port) for _ in range(2)]
    assert all(association.is_established for association in welcome)
    before = counted(room, "association.refused", "too_many")

    with RawSender(room.port) as third:
        third.send(third.request())
        kind, body = third.receive()
    assert (kind, body[1:]) == (REJECT, bytes([2, 3, 2])), "transient, presentation related: local limit exceeded"

    room.wait(lambda: counted(room, "association.refused", "too_many") == before + 1, "the refusal in the audit")
    for association in welcome:
        association.release()


def test_a_flood_of_connections_is_turned_away(room: ReceivingRoom) -> None:
    many = 2 + WAITING
    refused = room.receiver.view().refused
    flood = [RawSender(room.port) for _ in range(many + 20)]

    room.wait(lambda: room.receiver.view().refused >= refused + 10, "connections turned away unheard")
    for sender in flood:
        assert sender.ended()
        sender.socket.close()


def test_the_same_refusal_is_written_down_once_a_minute(room: ReceivingRoom, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clinic_ai.ingest.refusals.SAY_AGAIN_S", 60.0)
    refused = room.receiver.view().refused
    for number in range(3):
        assert store(room.port, [], title="STRANGER") == []
        room.wait(lambda: room.receiver.view().refused > refused + number, "the refusal counted")  # noqa: B023

    # What is counted at once is written down by the next step.
    room.wait(lambda: counted(room, "association.refused", "unknown_peer") > 0, "the refusal in the audit")
    assert counted(room, "association.refused", "unknown_peer") == 1


def test_a_giant_pdu_ends_the_association(room: ReceivingRoom) -> None:
    with RawSender(room.port).associate() as sender:
        sender.send(struct.pack(">BxL", 4, 0xFFFFFFFF) + b"\0" * 10_000)
        assert sender.ended()


def test_a_title_of_control_characters_is_refused_and_not_repeated(room: ReceivingRoom) -> None:
    before = counted(room, "association.refused", "no_request")
    with RawSender(room.port) as sender:
        request = sender.request()
        request[CALLING] = b"\x1b[31mCT\r\n\x07ROOM  "
        sender.send(request)
        assert sender.ended()

    room.wait(lambda: counted(room, "association.refused", "no_request") == before + 1, "the refusal in the audit")
    assert all(str(row["ae_title"]).isprintable() for row in room.audited("association.refused"))


# ------------------------------------------------------------ objects


def test_a_too_large_object_is_refused_in_words_and_the_next_one_is_not(room: ReceivingRoom, tmp_path: Path) -> None:
    name, content = object_of(tmp_path, 2)
    with RawSender(room.port).associate() as sender:
        sender.store(generate_uid(entropy_srcs=["large"]), b"\0" * (2 << 20), piece=100_000)
        assert sender.answer() == (OUT_OF_RESOURCES, "The object is larger than the receiver takes.", 1)
        assert room.arriving() == []
        sender.store(name, content)
        assert sender.answer()[0] == SUCCESS
        sender.release()

    room.wait(
        lambda: (1, 1) in {(end["stored"], end["refused"]) for end in room.audited("association.released")},
        "the end of the association",
    )
    assert counted(room, "object.refused", "too_large") == 1
    assert "larger than 1 MiB" in room.alerts()["too_large_to_receive"].sentence


def test_a_data_set_of_no_bytes_is_refused(room: ReceivingRoom) -> None:
    with RawSender(room.port).associate() as sender:
        sender.store(generate_uid(entropy_srcs=["empty"]), b"")
        assert sender.answer()[:2] == (CANNOT_UNDERSTAND, "The command came without a data set.")
        sender.release()

    room.wait(lambda: counted(room, "object.refused", "no_data") == 1, "the refusal in the audit")


def test_a_command_that_says_to_have_no_data_set_is_refused(room: ReceivingRoom) -> None:
    with RawSender(room.port).associate() as sender:
        command = sender.command(generate_uid(entropy_srcs=["none"]))
        with_data, without = struct.pack("<HHLH", 0, 0x0800, 2, 1), struct.pack("<HHLH", 0, 0x0800, 2, 0x0101)
        assert with_data in command
        sender.send(sender.data(sender.fragment(command.replace(with_data, without), command=True)))
        assert sender.answer()[0] == CANNOT_UNDERSTAND
        sender.release()


def test_an_alert_of_an_earlier_start_ends_when_objects_come_in_again(tmp_path: Path) -> None:
    with ReceivingRoom(tmp_path / "h") as again:
        with again.database.write() as connection:
            alerts.raise_alert(connection, "no_room_to_receive", "network", "An object was refused.", "Free space.")
        assert store(again.port, read(slices(tmp_path / "ct", 1, side=16))) == [SUCCESS]
        again.wait(lambda: "no_room_to_receive" not in again.alerts(), "no alert any more")


def test_a_disk_that_fails_is_told_and_ends_no_association(room: ReceivingRoom, tmp_path: Path) -> None:
    (name, content), arriving = object_of(tmp_path, 3), room.home.incoming / ".arriving"
    with RawSender(room.port).associate() as sender:
        shutil.rmtree(arriving)
        sender.store(name, content)
        assert sender.answer()[0] == OUT_OF_RESOURCES
        room.wait(lambda: "no_room_to_receive" in room.alerts(), "the alert")
        arriving.mkdir()
        sender.store(name, content)
        assert sender.answer()[0] == SUCCESS
        sender.release()

    room.wait(lambda: "no_room_to_receive" not in room.alerts(), "no alert any more")
    assert counted(room, "object.refused", "no_room") == 1


@pytest.mark.parametrize(
    "name", ["../../../etc/cron.d/x", "/etc/passwd", "1.2\x00.3", "1.2;rm -rf", "A" * 64, "..", "é"]
)
def test_a_name_that_is_no_uid_becomes_no_path(room: ReceivingRoom, tmp_path: Path, name: str) -> None:
    """As with CVE-2026-56445: what the command calls an object is stored as text, if it is taken at all."""
    true, content = object_of(tmp_path / "ct", 10 + len(name))
    outside = _around(room)
    before = set(room.kept())
    with RawSender(room.port).associate() as sender:
        raw = sender.command("1.2.3").replace(_uid("1.2.3"), _uid(name))
        sender.send(sender.data(sender.fragment(_with_length(raw), command=True)))
        sender.send(sender.data(sender.fragment(content)))
        assert sender.answer()[0] == SUCCESS
        sender.release()

    room.wait(lambda: len(set(room.kept()) - before) == 1, "the object stored")
    assert _around(room) == outside
    room.wait(lambda: true in {uid for _, uid in room.instances()}, "the instance as its data set calls it")


def _around(room: ReceivingRoom) -> set[Path]:
    """Return what lies around the home, and at the places that the names would lead to."""
    named = {Path("/etc/cron.d/x"), room.home.path.parents[2] / "etc"}
    around = {place for place in room.home.path.parent.rglob("*") if room.home.path not in place.parents}
    return around | {place for place in named if place.exists()}


def _uid(name: str) -> bytes:
    value = name.encode("latin-1")
    value += b"\0" * (len(value) % 2)
    return struct.pack("<HHL", 0, 0x1000, len(value)) + value


def _with_length(command: bytes) -> bytes:
    return command[:8] + struct.pack("<L", len(command) - 12) + command[12:]


def test_what_the_command_calls_otherwise_is_stored_by_its_data_set(room: ReceivingRoom, tmp_path: Path) -> None:
    """The file meta information repeats the command, the data set stays as it came, and ingest goes by that."""
    name, content = object_of(tmp_path, 4)
    before = set(room.kept())
    with RawSender(room.port).associate() as sender:
        sender.store("1.2.3", content, command=sender.command("1.2.3", "1.2.840.10008.5.1.4.1.1.4"))
        assert sender.answer()[0] == SUCCESS
        sender.release()

    room.wait(lambda: len(set(room.kept()) - before) == 1, "the object stored")
    (kept,) = set(room.kept()) - before
    (meta,) = (dataset.file_meta for dataset in read([kept]))
    assert (meta.MediaStorageSOPInstanceUID, meta.MediaStorageSOPClassUID) == ("1.2.3", "1.2.840.10008.5.1.4.1.1.4")
    assert data_set(kept) == content
    room.wait(lambda: name in {uid for _, uid in room.instances()}, "the instance as its data set calls it")


# ------------------------------------------------------------ messages


def _endless_command(sender: RawSender) -> None:
    for _ in range(200):
        sender.send(sender.data(sender.fragment(b"\0" * 10_000, command=True, last=False)))


def _endless_query(sender: RawSender) -> None:
    query = struct.pack("<HHLHHHLH", 0, 0x0100, 2, 0x0020, 0, 0x0800, 2, 1)  # a C-FIND
    sender.send(sender.data(sender.fragment(query, command=True)))
    for _ in range(200):
        sender.send(sender.data(sender.fragment(b"\0" * 10_000, last=False)))


def _data_before_a_command(sender: RawSender) -> None:
    sender.send(sender.data(sender.fragment(b"\0" * 100)))


def _command_in_a_data_set(sender: RawSender) -> None:
    sender.send(sender.data(sender.fragment(sender.command("1.2.3"), command=True)))
    sender.send(sender.data(sender.fragment(b"half", last=False), sender.fragment(sender.command("1.2"), command=True)))


def _another_context(sender: RawSender) -> None:
    sender.send(sender.data(sender.fragment(sender.command("1.2.3"), command=True, context=99)))


def _no_such_command(sender: RawSender) -> None:
    command = struct.pack("<HHLHHHLH", 0, 0x0100, 2, 0x1234, 0, 0x0800, 2, 0x0101)
    sender.send(sender.data(sender.fragment(command, command=True)))


def _an_object_without_a_name(sender: RawSender) -> None:
    command = struct.pack("<HHLHHHLH", 0, 0x0100, 2, 0x0001, 0, 0x0800, 2, 1)
    sender.send(sender.data(sender.fragment(command, command=True)))


def _wrong_item_length(sender: RawSender) -> None:
    sender.send(struct.pack(">BxLL", 4, 20, 4000) + b"\0" * 16)


@pytest.mark.parametrize(
    "harm",
    [
        _endless_command,
        _endless_query,
        _data_before_a_command,
        _command_in_a_data_set,
        _another_context,
        _no_such_command,
        _an_object_without_a_name,
        _wrong_item_length,
    ],
    ids=lambda harm: harm.__name__.strip("_"),
)
def test_a_message_no_sane_sender_sends_ends_its_association(
    room: ReceivingRoom, harm: Callable[[RawSender], None]
) -> None:
    ended = len(room.audited("association.aborted"))
    with RawSender(room.port).associate() as sender:
        try:
            harm(sender)
        except ConnectionError:
            pass  # it was cut off in the middle, as it should be
        assert sender.ended()

    room.wait(lambda: len(room.audited("association.aborted")) == ended + 1, "the end in the audit")
    assert room.audited("association.aborted")[-1]["stored"] == 0


def test_an_abort_and_a_second_request_in_one_association(room: ReceivingRoom) -> None:
    with RawSender(room.port).associate() as sender:
        sender.send(sender.request())
        assert sender.receive()[0] in {0, ABORT}
        assert sender.ended()
    with socket.create_connection(("127.0.0.1", room.port)) as connection:
        connection.sendall(struct.pack(">BxL4x", ABORT, 4))
