"""The receiver against real senders: DCMTK's programs, and pynetdicom where each answer has to be known."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import QUICK, Daemon
from pydicom import dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLosslessSV1
from pynetdicom import AE
from receiving_room import (
    OURS,
    PEER,
    ReceivingRoom,
    data_set,
    dcmsend,
    echo,
    free_port,
    interrupted,
    needs_dcmtk,
    read,
    slices,
    store,
    storescu,
)

from clinic_ai.disk.room import Shortage
from clinic_ai.domain import Fate
from clinic_ai.home import init_home
from clinic_ai.settings import PeerSettings
from clinic_ai.workers import parser, receiver

SUCCESS, OUT_OF_RESOURCES = 0x0000, 0xA700


def refusals(room: ReceivingRoom) -> dict[object, object]:
    """Return from where associations were refused, by the reason in the audit."""
    return {row["reason"]: row["address"] for row in room.audited("association.refused")}


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReceivingRoom]:
    """A room that several tests share; each sends studies of its own."""
    room = ReceivingRoom(tmp_path_factory.mktemp("receiver") / "h")
    yield room.listening()
    room.close()


@pytest.fixture
def open_room(tmp_path: Path) -> Iterator[list[ReceivingRoom]]:
    """Rooms of a test's own, closed at its end."""
    rooms: list[ReceivingRoom] = []
    yield rooms
    for room in rooms:
        room.close()


@pytest.fixture(scope="module")
def changing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., ReceivingRoom]]:
    """Return a function that lets one room listen by other keys of ``[network]``, as a reload would."""
    room = ReceivingRoom(tmp_path_factory.mktemp("changing") / "h", enabled=False)

    def listen(**network: object) -> ReceivingRoom:
        standard = {"enabled": True, "ae_title": OURS, "peer": (PEER,)}
        before = len(room.audited("network.listening"))
        room.follow({**standard, "tls_certificate": "", "tls_key": "", "tls_ca": "", **network})
        room.wait(lambda: len(room.audited("network.listening")) > before, "listening by these settings")
        return room

    yield listen
    room.close()


# ------------------------------------------------------------ what arrives


def test_the_bytes_are_stored_as_they_came(room: ReceivingRoom, tmp_path: Path) -> None:
    (path,) = slices(tmp_path, 1, seed=2)
    before = set(room.home.objects.rglob("*"))

    assert store(room.port, read([path])) == [SUCCESS]
    room.wait(lambda: len(room.files()) == 1, "the slice stored")

    (stored,) = (place for place in set(room.home.objects.rglob("*")) - before if place.is_file())
    sent, kept = dcmread(path), dcmread(stored)
    assert kept.file_meta.TransferSyntaxUID == sent.file_meta.TransferSyntaxUID
    assert data_set(stored) == data_set(path)


@pytest.mark.parametrize(
    ("offered", "agreed"),
    [
        (["1.2.840.113619.5.2", ImplicitVRLittleEndian, ExplicitVRLittleEndian], ImplicitVRLittleEndian),
        ([JPEGLosslessSV1, ImplicitVRLittleEndian], JPEGLosslessSV1),
        (["1.2.840.113619.5.2"], "1.2.840.113619.5.2"),
    ],
    ids=["one of the vendor's first", "all can be taken", "none can be taken"],
)
def test_of_the_transfer_syntaxes_offered_the_first_that_can_be_taken_is_agreed_on(
    room: ReceivingRoom, offered: list[str], agreed: str
) -> None:
    ae = AE(PEER.ae_title)
    ae.add_requested_context(CTImageStorage, offered)
    association = ae.associate("127.0.0.1", room.port, ae_title=OURS)
    assert [context.transfer_syntax for context in association.accepted_contexts] == [[agreed]]
    association.release()


def test_no_transfer_syntax_is_preferred_that_is_not_taken() -> None:
    assert receiver.PREFERRED <= parser._NATIVE | parser._COMPRESSED


@needs_dcmtk
def test_echo_is_answered(room: ReceivingRoom) -> None:
    assert echo(room.port).returncode == 0


@needs_dcmtk
def test_a_killed_sender_leaves_whole_objects_and_nothing_else(tmp_path: Path, open_room: list[ReceivingRoom]) -> None:
    room = ReceivingRoom(tmp_path / "h").listening()
    open_room.append(room)
    files = slices(tmp_path / "ct", 300, side=128)
    sender = dcmsend(room.port, files)
    room.wait(lambda: room.receiver.view().stored > 5, "the first slices received")

    sender.kill()
    sender.wait()
    room.wait(lambda: len(room.audited("association.aborted")) == 1, "the end of the association in the audit")

    (end,) = room.audited("association.aborted")
    assert 5 < int(str(end["stored"])) < 300
    room.wait(lambda: room.fates() == {Fate.STORED: end["stored"]}, "what was acknowledged stored")
    assert room.arriving() == []

    assert dcmsend(room.port, files).wait() == 0
    room.wait(lambda: room.fates() == {Fate.STORED: 300, Fate.DUPLICATE: end["stored"]}, "a resend of everything")
    assert set(room.instances().values()) == {1}


# ------------------------------------------------------------ crashes


def test_what_was_acknowledged_survives_the_death_of_the_receiver(
    tmp_path: Path, open_room: list[ReceivingRoom]
) -> None:
    room = ReceivingRoom(tmp_path / "h").listening()
    open_room.append(room)
    datasets = read(slices(tmp_path / "ct", 24))
    first = room.child()

    answers = store(room.port, interrupted(datasets, 17, first.kill))
    assert answers == [SUCCESS] * 17

    room.wait(lambda: "receiver_down" in room.alerts() or room.receiver.view().listening, "the death noticed")
    room.wait(lambda: room.receiver.view().listening and first.pid not in room.pids() != set(), "a new receiver")
    room.wait(lambda: room.fates() == {Fate.STORED: 17}, "all 17 acknowledged slices stored")
    assert store(room.port, datasets) == [SUCCESS] * 24
    room.wait(lambda: room.fates() == {Fate.STORED: 24, Fate.DUPLICATE: 17}, "the rest stored")
    assert "receiver_down" not in room.alerts()


def test_what_was_acknowledged_survives_the_death_of_everything(tmp_path: Path) -> None:
    home, port = init_home(tmp_path / "h"), free_port()
    home.clinic_toml.write_text(
        f'{QUICK}\n[network]\nenabled = true\nbind = "127.0.0.1"\nport = {port}\n'
        f'[[network.peer]]\nname = "{PEER.name}"\nae_title = "{PEER.ae_title}"\n'
    )
    datasets = read(slices(tmp_path / "ct", 15))
    daemon = Daemon(home)
    daemon.wait_for("network.listening")

    answers = store(port, interrupted(datasets, 12, daemon.kill))
    assert answers == [SUCCESS] * 12
    (home.incoming / ".arriving" / "tmpcut.dcm").write_bytes(b"half of it")

    room = ReceivingRoom(tmp_path / "h").listening()
    try:
        room.wait(lambda: room.fates() == {Fate.STORED: len(answers)}, "all that was acknowledged stored")
        assert room.arriving() == []
    finally:
        room.close()


def test_what_a_removed_peer_sent_is_taken_all_the_same(room: ReceivingRoom) -> None:
    slices(room.home.incoming / "gone", 3, seed=5)

    room.wait(lambda: room.names()["gone"] == 3, "the files of a peer that is not in the settings stored")


# ------------------------------------------------------------ who may send, and how much


@needs_dcmtk
def test_an_unknown_title_is_refused_and_audited(room: ReceivingRoom) -> None:
    done = echo(room.port, title="../../etc")

    assert done.returncode != 0
    assert "Calling AE Title Not Recognized" in done.stderr
    room.wait(
        lambda: [r["ae_title"] for r in room.audited("association.refused")].count("../../etc") == 1, "the refusal"
    )


def test_another_title_than_ours_is_refused(tmp_path: Path, changing: Callable[..., ReceivingRoom]) -> None:
    room = changing(ae_title="SOMEBODY")

    assert store(room.port, read(slices(tmp_path / "ct", 1))) == []
    room.wait(lambda: "wrong_called_title" in refusals(room), "the refusal in the audit")


def test_an_unknown_machine_is_turned_away_before_it_says_anything(
    tmp_path: Path, changing: Callable[..., ReceivingRoom]
) -> None:
    stranger = PEER.model_copy(update={"host": "192.0.2.0/24"})
    room = changing(peer=(stranger,))

    with socket.create_connection(("127.0.0.1", room.port), timeout=10) as connection:
        assert connection.recv(1) == b""
    room.wait(lambda: "unknown_address" in refusals(room), "the refusal in the audit")
    assert refusals(room)["unknown_address"] == "127.0.0.1"


def test_without_peers_nobody_is_let_in_and_the_status_says_so(
    tmp_path: Path, changing: Callable[..., ReceivingRoom]
) -> None:
    room = changing(peer=())

    assert store(room.port, read(slices(tmp_path / "ct", 1))) == []
    assert "nobody may send" in room.receiver.view().sentence


def test_below_the_reserve_objects_are_refused_until_there_is_room(
    tmp_path: Path, changing: Callable[..., ReceivingRoom]
) -> None:
    room = changing(reserve_mb=10**9)
    datasets = read(slices(tmp_path / "ct", 2))

    assert store(room.port, datasets) == [OUT_OF_RESOURCES] * 2
    room.wait(lambda: room.audited("object.refused") != [], "the refusal in the audit")
    assert room.arriving() == []
    assert room.fates() == {}

    changing()
    assert store(room.port, datasets) == [SUCCESS] * 2
    room.wait(lambda: room.fates() == {Fate.STORED: 2}, "both stored")
    assert "no_room_to_receive" not in room.alerts()  # the keeper of the disk says it, for all ways in at once


def test_a_peer_that_has_to_wait_for_room_is_refused_alone(
    tmp_path: Path, changing: Callable[..., ReceivingRoom]
) -> None:
    other = PeerSettings(name="mr room", ae_title="MR_ROOM", host="127.0.0.1")
    room = changing(peer=(PEER, other))
    room.intake.room.shut(None, {PEER.name: Shortage("Its files fill the quarantine.", "Decide about them.")})
    try:
        first, second = read(slices(tmp_path / "ct", 2))
        room.wait(lambda: store(room.port, [first]) == [OUT_OF_RESOURCES], "the peer refused")
        assert store(room.port, [second], "MR_ROOM") == [SUCCESS]
    finally:
        room.intake.room.shut(None, {})
    room.wait(lambda: store(room.port, [first]) == [SUCCESS], "the peer let in again")


def test_a_port_in_use_is_an_alert_and_listening_begins_when_it_is_free(
    tmp_path: Path, open_room: list[ReceivingRoom]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        room = ReceivingRoom(tmp_path / "h", port=other.getsockname()[1])
        open_room.append(room)
        room.wait(lambda: "receiver_down" in room.alerts(), "the alert")
        assert "Address already in use" in room.alerts()["receiver_down"].sentence
        assert not room.receiver.view().listening
    room.listening()
    assert "receiver_down" not in room.alerts()


# ------------------------------------------------------------ hostile senders


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_no_path_is_made_of_what_a_sender_says(tmp_path: Path, open_room: list[ReceivingRoom]) -> None:
    evil = PeerSettings(name="evil", ae_title="../../../evil")
    room = ReceivingRoom(tmp_path / "h", peer=(evil,)).listening()
    open_room.append(room)
    (dataset,) = read(slices(tmp_path / "ct", 1))
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "../../../../evil"
    outside = {place for place in tmp_path.rglob("*") if room.home.path not in place.parents}

    store(room.port, [dataset], title=evil.ae_title)
    room.wait(lambda: len(room.audited("association.accepted")) == 1, "the association")
    room.wait(lambda: not room.receiver.view().open, "its end")

    assert {place for place in tmp_path.rglob("*") if room.home.path not in place.parents} == outside
    assert list(tmp_path.rglob("*evil*")) == [room.home.incoming / "evil"]


@pytest.mark.parametrize(
    "rubbish",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack(">BBL", 1, 0, 0xFFFFFFFF) + b"\0" * 100_000,
        struct.pack(">BBL", 4, 0, 10) + b"\xff" * 10,
        struct.pack(">BBL", 1, 0, 74) + b"\0\1\0\0" + b"\xff" * 70,
    ],
    ids=["http", "a length of 4 GiB", "data before an association", "a title that is no text"],
)
def test_rubbish_ends_its_own_connection_only(room: ReceivingRoom, rubbish: bytes, tmp_path: Path) -> None:
    child = room.child().pid
    with socket.create_connection(("127.0.0.1", room.port), timeout=10) as connection:
        connection.sendall(rubbish)

        assert store(room.port, read(slices(tmp_path, 1, seed=3))) == [SUCCESS]
    assert room.child().pid == child


# ------------------------------------------------------------ TLS


@needs_dcmtk
@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
def test_with_tls_a_sender_needs_a_certificate(tmp_path: Path, changing: Callable[..., ReceivingRoom]) -> None:
    for name in ("appliance", "sender"):
        made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", f"/CN={name}"]
        files = ["-keyout", f"{tmp_path}/{name}.key", "-out", f"{tmp_path}/{name}.pem"]
        subprocess.run([*made, *files], check=True, capture_output=True, timeout=60)
    room = changing(
        tls_certificate=str(tmp_path / "appliance.pem"),
        tls_key=str(tmp_path / "appliance.key"),
        tls_ca=str(tmp_path / "sender.pem"),
    )
    trust = ["+cf", f"{tmp_path}/appliance.pem"]
    known = ["+tls", f"{tmp_path}/sender.key", f"{tmp_path}/sender.pem", *trust]
    scans = slices(tmp_path / "ct", 3, seed=70, side=256)
    before = set(room.kept())

    assert echo(room.port, *known).returncode == 0
    assert storescu(room.port, scans, *known).wait() == 0
    room.wait(lambda: len(set(room.kept()) - before) == 3, "3 slices stored")
    assert {data_set(kept) for kept in set(room.kept()) - before} == {data_set(scan) for scan in scans}
    assert echo(room.port, "+tla", *trust).returncode != 0
    assert echo(room.port, "-to", "5", "-ta", "5").returncode != 0
    room.wait(lambda: "no_request" in refusals(room), "the refusal in the audit")


def test_tls_files_that_cannot_be_used_are_an_alert(changing: Callable[..., ReceivingRoom]) -> None:
    room = changing()
    room.follow(dict.fromkeys(("tls_certificate", "tls_key", "tls_ca"), "none.pem"))

    room.wait(lambda: "receiver_down" in room.alerts(), "the alert")
    assert "TLS files" in room.alerts()["receiver_down"].sentence
    assert not room.receiver.view().listening


def test_a_stopped_receiver_is_found_and_replaced(
    tmp_path: Path, open_room: list[ReceivingRoom], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clinic_ai.ingest.receiving.HANG_S", 0.5)
    room = ReceivingRoom(tmp_path / "h").listening()
    open_room.append(room)
    stopped = room.child()

    os.kill(stopped.pid, signal.SIGSTOP)

    def replaced() -> bool:
        others = [c for c in room.crew.living() if c.spec.kind == "receiver" and c.pid != stopped.pid]
        return bool(room.receiver.view().listening and others)

    room.wait(replaced, "a new receiver")
    assert OURS in room.receiver.view().sentence
