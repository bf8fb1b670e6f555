"""What the control room tells of the machine: now, of late, who takes its memory, and its links."""

from __future__ import annotations

import time

import psutil
import pytest
from control_room import Room

from clinic_ai.control.client import Client
from clinic_ai.control.terminal_client import TerminalClient
from clinic_ai.errors import ClinicError
from clinic_ai.settings import NetworkSettings, PeerSettings
from clinic_ai.store import artefacts
from clinic_ai.store.artefacts import next_delivery
from clinic_ai.store.links import links


def terminal(room: Room, *, monitor: bool = False) -> TerminalClient:
    return TerminalClient(room.home, monitor=monitor)


@pytest.mark.parametrize("monitor", [False, True])
def test_anybody_sees_the_machine(room: Room, monitor: bool) -> None:
    room.allow(administrators=(), clinicians=())
    room.sampler.sample()
    with terminal(room, monitor=monitor) as client:
        told = client.machine()
    assert told.host
    assert told.cores >= 1
    assert told.now is not None
    assert told.now.memory_mb == psutil.virtual_memory().total >> 20
    assert 0 <= told.now.cpu_percent <= 100
    assert told.problem == ""
    assert told.past.span == "hour"
    assert len(told.past.memory_mb) == 120
    assert told.past.memory_mb[-1] is not None
    assert told.past.memory_mb[0] is None
    assert told.daemon_resident_bytes > 1 << 20
    assert told.disks[0].total_bytes > 0


def test_a_day_in_as_many_steps_as_asked(room: Room) -> None:
    with terminal(room) as client:
        past = client.machine("day", 24).past
        assert (past.span, past.step_s, len(past.cpu_percent)) == ("day", 3600, 24)
        with pytest.raises(ClinicError, match="points"):
            client.machine("hour", 721)


def test_before_the_first_reading_there_is_none(room: Room) -> None:
    with terminal(room) as client:
        assert client.machine().now is None


def test_links_say_how_the_last_delivery_ended(room: Room) -> None:
    with terminal(room) as client:
        assert client.machine().targets == ()
        room.add_result(room.add_study())
        [row] = client.machine().targets
        assert (row.target, row.place, row.state, row.waiting) == ("outbox", str(room.home.path / "outbox"), "", 1)
        with room.database.write() as c:
            due = next_delivery(c, 2e9, longest_s=1)
            assert due is not None
            artefacts.postpone(c, due[0], "The outbox is full.", 0)
        [row] = client.machine().targets
        assert (row.state, row.attempts, row.error, row.waiting) == ("PENDING", 1, "The outbox is full.", 1)
        with room.database.write() as c:
            artefacts.mark_sent(c, due[0], due[1].study_id, "outbox/x")
        [row] = client.machine().targets
        assert (row.state, row.error, row.waiting) == ("SENT", "", 0)
        assert row.ended_at is not None


def test_an_older_success_does_not_hide_a_newer_failure(room: Room) -> None:
    for _ in range(2):
        room.add_result(room.add_study())
    with room.database.write() as c:
        first = next_delivery(c, 2e9, longest_s=1)
        assert first is not None
        artefacts.mark_sent(c, first[0], first[1].study_id, "x")
        second = next_delivery(c, 2e9, longest_s=1)
        assert second is not None
        artefacts.postpone(c, second[0], "It is full.", 0)
    with room.database.read() as c:
        [link] = links(c)
    assert (link.error, link.waiting) == ("It is full.", 1)


def test_the_receiver_and_who_may_send_are_named(room: Room) -> None:
    network = NetworkSettings(enabled=True, peer=(PeerSettings(name="pacs", ae_title="PACS_1", host="10.0.0.7"),))
    room.shared.settings = room.shared.settings.model_copy(update={"network": network})
    with terminal(room) as client:
        told = client.machine()
    assert not told.network.listening
    assert [(peer.name, peer.ae_title, peer.host) for peer in told.peers] == [("pacs", "PACS_1", "10.0.0.7")]


def test_inboxes_are_told_of_when_one_of_them_changes(room: Room) -> None:
    topics = room.server._app.state.services.topics
    before = topics.numbers().get("inboxes", 0)
    room.look()
    first = topics.numbers()["inboxes"]
    assert first > before
    room.look()
    assert topics.numbers()["inboxes"] == first
    (room.home.path / "inbox" / "a.dcm").write_bytes(b"x")
    deadline = time.monotonic() + 20
    while topics.numbers()["inboxes"] == first:
        assert time.monotonic() < deadline, "a file that waits should be told of"
        room.look()  # an inbox rests between two looks


def test_each_reading_is_told_to_who_follows(room: Room) -> None:
    with Client(room.home) as client:
        news = client.follow()
        assert next(news).topic == "start"
        room.sampler.sample()
        assert next(news).topic == "machine"
