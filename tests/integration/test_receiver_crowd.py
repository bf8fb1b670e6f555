"""Many senders, killed and impatient ones: nothing is lost, and nothing is there twice."""

from __future__ import annotations

import shutil
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from raw_sender import ABORT, RawSender
from receiving_room import (
    ReceivingRoom,
    associate,
    data_set,
    dcmsend,
    gdcmscu,
    needs_dcmtk,
    read,
    slices,
    store,
    storescu,
)

from clinic_ai.domain import Fate

SUCCESS = 0x0000


@needs_dcmtk
def test_five_hundred_slices_by_eight_senders_and_a_resend(tmp_path: Path) -> None:
    """Four times dcmsend, three times storescu and once pynetdicom, all at once; then everything again."""
    files = slices(tmp_path / "ct", 500, side=32)
    parts = [files[part::8] for part in range(8)]
    with ReceivingRoom(tmp_path / "h", ingest={"quiet_period_s": 1.0}) as room:
        answers: list[int] = []
        thread = threading.Thread(target=lambda: answers.extend(store(room.port, read(parts[7]))))
        thread.start()
        senders = [dcmsend(room.port, part) for part in parts[:4]] + [storescu(room.port, part) for part in parts[4:7]]
        assert [sender.wait() for sender in senders] == [0] * 7
        thread.join()
        assert answers == [SUCCESS] * len(parts[7])
        room.wait(lambda: room.fates() == {Fate.STORED: 500}, "500 slices stored")
        room.wait(lambda: len(room.audited("association.released")) == 8, "the ends of 8 associations in the audit")

        assert room.names() == {"ct room": 500}
        assert len(room.audited("association.accepted")) == 8
        ends = room.audited("association.released")
        assert sum(int(str(end["stored"])) for end in ends) == 500
        callers = {(end["subject"], end["ae_title"], end["address"]) for end in ends}
        assert callers == {("ct room", "CT_ROOM", "127.0.0.1")}

        again = [dcmsend(room.port, part) for part in parts]
        assert [sender.wait() for sender in again] == [0] * 8
        room.wait(lambda: room.fates() == {Fate.STORED: 500, Fate.DUPLICATE: 500}, "a resend noted as duplicates")
        assert len(room.instances()) == len(room.kept()) == 500
        assert set(room.instances().values()) == {1}
        assert room.arriving() == []


@needs_dcmtk
def test_two_senders_of_the_same_study_at_the_same_time(tmp_path: Path) -> None:
    files = slices(tmp_path / "ct", 80, side=32)
    with ReceivingRoom(tmp_path / "h") as room:
        senders = [dcmsend(room.port, files), storescu(room.port, files[::-1])]
        assert [sender.wait() for sender in senders] == [0, 0]

        room.wait(lambda: room.fates() == {Fate.STORED: 80, Fate.DUPLICATE: 80}, "each slice once, and once more noted")
        assert len(room.instances()) == len(room.kept()) == 80


@pytest.mark.skipif(not shutil.which("gdcmscu"), reason="gdcmscu (libgdcm-tools) is not installed")
def test_a_sender_of_gdcm(tmp_path: Path) -> None:
    files = slices(tmp_path / "ct", 5, side=32)
    with ReceivingRoom(tmp_path / "h") as room:
        gdcmscu(room.port, files).wait()  # version 3.0.21 aborts at its end, whoever it has sent to
        room.wait(lambda: room.fates() == {Fate.STORED: 5}, "5 slices stored")


# ------------------------------------------------------------ senders that break off


def _reset(sender: RawSender) -> None:
    """End the connection as a killed process with unread data does."""
    sender.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sender.socket.close()


BREAKS: dict[str, Callable[[RawSender], None]] = {
    "killed": _reset,
    "closed": lambda sender: sender.socket.close(),
    "aborted": lambda sender: sender.send(struct.pack(">BxL4x", ABORT, 4)),
    "silent": lambda _: None,
}


@pytest.fixture(scope="module")
def short_room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReceivingRoom]:
    """Return a room where silent senders are cut off after a second; tests send studies of their own."""
    room = ReceivingRoom(tmp_path_factory.mktemp("short") / "h", timeout_s=1.0)
    yield room.listening()
    room.close()


@needs_dcmtk
@pytest.mark.parametrize("how", BREAKS)
def test_a_sender_that_ends_in_the_middle_of_an_object(short_room: ReceivingRoom, tmp_path: Path, how: str) -> None:
    room, seed = short_room, 100 + list(BREAKS).index(how)
    files = slices(tmp_path / "ct", 2, seed=seed)
    first, second = read(files)
    ended = len(room.audited("association.aborted"))
    before = room.fates()

    sender = RawSender(room.port).associate()
    sender.store(first.SOPInstanceUID, data_set(files[0]))
    assert sender.answer()[0] == SUCCESS
    sender.send(sender.data(sender.fragment(sender.command(second.SOPInstanceUID), command=True)))
    sender.send(sender.data(sender.fragment(data_set(files[1])[:4000], last=False)))
    room.wait(lambda: len(list((room.home.incoming / ".arriving").iterdir())) == 1, "half of the second slice")
    BREAKS[how](sender)

    room.wait(lambda: len(room.audited("association.aborted")) == ended + 1, "the end of the association")
    sender.socket.close()
    assert room.audited("association.aborted")[-1]["stored"] == 1
    room.wait(lambda: room.arriving() == [], "nothing left of the second slice")
    assert dcmsend(room.port, files).wait() == 0
    stored, known = before.get(Fate.STORED, 0) + 2, before.get(Fate.DUPLICATE, 0) + 1
    room.wait(lambda: room.fates() == {Fate.STORED: stored, Fate.DUPLICATE: known}, "the rest of the resend stored")


def test_a_sender_that_aborts_between_two_objects(short_room: ReceivingRoom, tmp_path: Path) -> None:
    datasets = read(slices(tmp_path / "ct", 2, seed=120))
    ended = len(short_room.audited("association.aborted"))
    association = associate(short_room.port)
    assert [association.send_c_store(dataset).Status for dataset in datasets] == [SUCCESS] * 2
    association.abort()

    short_room.wait(lambda: len(short_room.audited("association.aborted")) == ended + 1, "the abort in the audit")
    assert short_room.audited("association.aborted")[-1]["stored"] == 2


@needs_dcmtk
def test_a_receiver_killed_again_and_again_while_a_sender_tries_again(tmp_path: Path) -> None:
    files = slices(tmp_path / "ct", 120, side=128)
    with ReceivingRoom(tmp_path / "h") as room:
        codes = []
        for kill in (5, 40, 80, 0):
            room.wait(lambda: room.receiver.view().listening and room.pids() != set(), "a receiver")
            child, before = room.child(), room.receiver.view().stored
            sender = dcmsend(room.port, files)
            if kill:
                room.wait(lambda: room.receiver.view().stored >= before + kill, "some slices received")  # noqa: B023
                child.kill()
            codes.append(sender.wait())
            room.wait(lambda: child.pid not in room.pids() or not kill, "its death noticed")  # noqa: B023
        assert codes[-1] == 0
        assert codes.count(0) < 4, "no sender noticed that its receiver was killed"

        room.wait(lambda: room.fates().get(Fate.STORED) == 120, "all slices stored")
        room.wait(lambda: room.arriving() == [], "everything taken")
        assert len(room.instances()) == len(room.kept()) == 120
        assert set(room.instances().values()) == {1}


# ------------------------------------------------------------ how an object is cut into pieces


@pytest.mark.parametrize("piece", [1, 7, 4096, 100_000])
def test_pieces_of_any_size(short_room: ReceivingRoom, tmp_path: Path, piece: int) -> None:
    (path,) = slices(tmp_path / "ct", 1, seed=130 + piece, side=16 if piece < 100 else 256)
    name = read([path])[0].SOPInstanceUID
    before = set(short_room.kept())
    with RawSender(short_room.port).associate() as sender:
        sender.store(name, data_set(path), piece=piece)
        assert sender.answer()[0] == SUCCESS
        sender.release()

    wanted = data_set(path)
    # What the tests before this one sent may still be on its way.
    short_room.wait(lambda: wanted in map(data_set, set(short_room.kept()) - before), "the slice stored as it was sent")


def test_a_command_in_pieces_and_with_its_data_in_one_pdu(short_room: ReceivingRoom, tmp_path: Path) -> None:
    (path,) = slices(tmp_path / "ct", 1, seed=140, side=16)
    command, content = RawSender.command(read([path])[0].SOPInstanceUID), data_set(path)
    before = set(short_room.kept())
    with RawSender(short_room.port).associate() as sender:
        sender.send(sender.data(sender.fragment(command[:50], command=True, last=False)))
        parts = [sender.fragment(command[50:], command=True), sender.fragment(content[:100], last=False)]
        sender.send(sender.data(*parts, sender.fragment(content[100:])))
        assert sender.answer()[0] == SUCCESS
        sender.release()

    short_room.wait(lambda: content in map(data_set, set(short_room.kept()) - before), "the slice stored as sent")


def test_answers_fit_into_the_pdus_a_sender_takes(short_room: ReceivingRoom, tmp_path: Path) -> None:
    (path,) = slices(tmp_path / "ct", 1, seed=141, side=16)
    with RawSender(short_room.port, max_length=64).associate() as sender:
        sender.store(read([path])[0].SOPInstanceUID, data_set(path))
        status, _, pdus = sender.answer()
        sender.release()

    assert status == SUCCESS
    assert pdus > 1
