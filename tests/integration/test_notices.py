"""Notices of critical findings: real database, web server and mail server, and a clock of the test's own."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from control_room import NAME, SECRET, Room, control_room
from notice_servers import Mailbox, MailServer, WebServer

from clinic_ai.critical.channels import ALTOGETHER, START_S
from clinic_ai.critical.errand import EMAIL, WEBHOOK
from clinic_ai.critical.herald import BACKOFF_S, FAILED, STUCK_S, Herald, Messenger
from clinic_ai.domain import JobKind
from clinic_ai.errors import NotAllowed, NotFound
from clinic_ai.processes import Crew
from clinic_ai.settings import EmailSettings, NotifySettings, ReviewSettings, WebhookSettings
from clinic_ai.store import alerts, audit, critical, jobs
from clinic_ai.store.critical import Hit

WHAT = "condition:pneumothorax"
HIT = Hit(WHAT, category=1, waits_s=(300.0, 600.0), escalate_after=2, escalate_to=("head@clinic.example",))

REVIEWER = "Dr. Ada Example"


class Clock:
    """A clock that goes on when the test says so."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    with control_room(tmp_path / "h") as served:
        review = ReviewSettings(reviewers=(REVIEWER,))
        served.shared.settings = served.shared.settings.model_copy(update={"review": review})
        yield served


@pytest.fixture
def web() -> Iterator[WebServer]:
    server = WebServer()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def mailbox() -> Iterator[tuple[Mailbox, int]]:
    box = Mailbox()
    controller = MailServer(box)
    controller.start()
    yield box, controller.port
    controller.stop()


class Desk:
    """The herald and the messengers of a room, stepped by hand."""

    def __init__(self, room: Room, clock: Clock, **notify: object) -> None:
        self.room, self.clock = room, clock
        settings = room.shared.settings.model_copy(update={"notify": NotifySettings(**notify)})
        self.settings = settings
        self.woken = 0
        self.crew = Crew()
        self.herald = Herald(room.database, lambda: self.settings, self._wake, clock)
        self.messengers = {
            c: Messenger(c, self.crew, room.database, lambda: self.settings, room.home.path, clock)
            for c in (WEBHOOK, EMAIL)
        }

    def _wake(self) -> None:
        self.woken += 1

    def work(self) -> None:
        """Let everything be done that is due now."""
        while self.herald.step():
            pass
        for messenger in self.messengers.values():
            while messenger.step():
                pass

    def open(self, code: str) -> list[str]:
        with self.room.database.read() as connection:
            return [alert.sentence for alert in alerts.open_alerts(connection) if alert.code == code]


def find(room: Room, clock: Clock, study_id: str, *, version: int = 1, hit: Hit = HIT) -> int:
    """Store that a study has a critical finding; return the number of the newest open alert."""
    with room.database.write() as connection:
        job_id = jobs.add_job(connection, kind=JobKind.ANALYSE, study_id=study_id, version=1)
        critical.raise_alerts(connection, job_id, study_id, version, [hit], clock())
        return max(alert.alert_id for alert in critical.open_critical(connection))


def test_an_alert_repeats_on_its_schedule_until_a_person_acknowledges(room: Room) -> None:
    clock = Clock()
    desk = Desk(room, clock)
    alert_id = find(room, clock, room.add_study())
    seen = []
    for wait in (0, 299, 1, 599, 1, 600, 600):
        clock.now += wait
        desk.work()
        with room.database.read() as connection:
            (alert,) = critical.open_critical(connection)
        seen.append((alert.notices, alert.escalated))
    assert seen == [(1, False), (1, False), (2, False), (2, False), (3, True), (4, True), (5, True)]
    assert desk.woken == 5
    with room.client() as client:
        client.acknowledge(alert_id, told_to="Dr. Weber", reviewer=REVIEWER)
    clock.now += 10_000
    assert not desk.herald.step()
    with room.database.read() as connection:
        assert critical.open_critical(connection) == []
        assert audit.first_break(connection) is None


def test_a_clock_that_was_set_back_does_not_silence_an_alert(room: Room) -> None:
    clock = Clock()
    desk = Desk(room, clock)
    find(room, clock, room.add_study())
    desk.work()
    clock.now -= 86_400
    assert desk.herald.step()
    assert not desk.herald.step()


def test_the_same_finding_is_told_once_for_each_version(room: Room) -> None:
    clock = Clock()
    study_id = room.add_study()
    alert_id = find(room, clock, study_id)
    assert find(room, clock, study_id) == alert_id
    assert find(room, clock, study_id, version=2) == alert_id  # still open: one alert, told again at once
    with room.client() as client:
        client.acknowledge(alert_id, reviewer=REVIEWER)
    with room.database.write() as connection:
        job_id = jobs.add_job(connection, kind=JobKind.ANALYSE, study_id=study_id, version=1)
        critical.raise_alerts(connection, job_id, study_id, 2, [HIT], clock())
        assert critical.open_critical(connection) == []  # a repeated job tells nothing new
        critical.raise_alerts(connection, job_id, study_id, 3, [HIT], clock())
        assert [alert.study_id for alert in critical.open_critical(connection)] == [study_id]


def test_two_findings_of_a_study_are_acknowledged_one_by_one(room: Room) -> None:
    clock = Clock()
    study_id = room.add_study()
    first = find(room, clock, study_id)
    second = find(room, clock, study_id, hit=Hit("term:bleeding", 2, (60.0,), 0, ()))
    assert first != second
    with room.client() as client:
        client.acknowledge(first, reviewer=REVIEWER)
        assert [row.what for row in client.critical()] == ["bleeding"]


def test_technicians_see_that_and_not_what_and_cannot_acknowledge(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    from clinic_ai.control import door
    from clinic_ai.control.views import Role

    alert_id = find(room, Clock(), room.add_study())
    monkeypatch.setattr(door, "role_of", lambda *_: Role.TECHNICIAN)
    with room.client() as client:
        (shown,) = client.alerts()
        assert shown.alert_id == alert_id
        assert "pneumothorax" not in shown.model_dump_json()
        with pytest.raises(NotAllowed):
            client.critical()
        with pytest.raises(NotAllowed):
            client.acknowledge(alert_id, reviewer=REVIEWER)
    with room.database.read() as connection:
        assert critical.open_critical(connection)
        refused = [row.subject for row in audit.rows(connection, after=0, limit=1000) if row.action == "access.refused"]
    assert f"/v1/alerts/{alert_id}/acknowledge" in refused


def test_root_and_the_daemons_user_are_no_persons_who_acknowledge(room: Room) -> None:
    alert_id = find(room, Clock(), room.add_study())
    with room.client() as client:
        with pytest.raises(NotAllowed, match="no named person"):
            client.acknowledge(alert_id)
        with pytest.raises(NotAllowed, match="not a name of"):
            client.acknowledge(alert_id, reviewer="Dr. Nobody")
        assert REVIEWER in client.acknowledge(alert_id, reviewer=REVIEWER).sentence
    with room.database.read() as connection:
        (closed,) = [row for row in audit.rows(connection, after=0, limit=1000) if row.action == "alert.acknowledged"]
    assert closed.actor.startswith(f"{REVIEWER} (")


def test_what_was_found_is_not_told_on_the_monitor_socket(room: Room) -> None:
    find(room, Clock(), room.add_study())
    with room.client(monitor=True) as client:
        assert len(client.alerts()) == 1
        with pytest.raises(NotAllowed, match="monitor socket"):
            client.critical()


def test_nothing_but_a_person_closes_it(room: Room) -> None:
    find(room, Clock(), room.add_study())
    with room.database.write() as connection, pytest.raises(ValueError, match="a person"):
        alerts.withdraw(connection, critical.CODE, "S critical 1")
    with room.client() as client, pytest.raises(NotFound):
        client.acknowledge(999)


def test_notices_leave_by_both_channels_with_fixed_words_only(
    room: Room, web: WebServer, mailbox: tuple[Mailbox, int]
) -> None:
    box, port = mailbox
    clock = Clock()
    (room.home.path / "token").write_text("s3cret\n")
    desk = Desk(
        room,
        clock,
        webhook=WebhookSettings(url=web.url, token_file="token"),
        email=EmailSettings(host="127.0.0.1", port=port, tls="none", sender="ai@c.example", to=("desk@c.example",)),
    )
    study_id = room.add_study()
    alert_id = find(room, clock, study_id)
    for wait in (0, 300, 600):
        clock.now += wait
        desk.work()
    assert [(n["alert"], n["study"], n["notice"], n["category"], n["escalated"]) for n in web.got] == [
        (alert_id, study_id, number, 1, number > 2) for number in (1, 2, 3)
    ]
    assert {h["Authorization"] for h in web.headers} == {"Bearer s3cret"}
    assert [to for to, _ in box.got] == [
        ["desk@c.example"],
        ["desk@c.example"],
        ["desk@c.example", "head@clinic.example"],
    ]
    assert all(study_id in mail["Subject"] for _, mail in box.got)
    said = json.dumps(web.got) + "".join(mail.as_string() for _, mail in box.got)
    for secret in (NAME, "4711", "pneumothorax", SECRET, "P-0"):
        assert secret not in said
    assert not desk.open(FAILED)


@pytest.mark.parametrize("status", [500, 404, 302])
def test_a_webhook_that_fails_is_an_alert_and_is_tried_again(room: Room, web: WebServer, status: int) -> None:
    clock = Clock()
    web.status = status
    desk = Desk(room, clock, webhook=WebhookSettings(url=web.url))
    find(room, clock, room.add_study(), hit=Hit(WHAT, 1, (86_400.0,), 0, ()))
    for wait in (0.0, *BACKOFF_S):
        clock.now += wait
        desk.work()
    assert len(web.headers) == 1 + len(BACKOFF_S)
    (sentence,) = desk.open(FAILED)
    assert str(status) in sentence
    web.status = 200
    clock.now += BACKOFF_S[-1]
    desk.work()
    assert [notice["notice"] for notice in web.got] == [1]
    assert not desk.open(FAILED)


def test_a_mail_server_that_fails_is_an_alert_and_does_not_hold_the_webhook_up(
    room: Room, web: WebServer, mailbox: tuple[Mailbox, int]
) -> None:
    box, port = mailbox
    box.closed = True
    clock = Clock()
    email = EmailSettings(host="127.0.0.1", port=port, tls="none", sender="ai@c.example", to=("desk@c.example",))
    desk = Desk(room, clock, webhook=WebhookSettings(url=web.url), email=email)
    alert_id = find(room, clock, room.add_study())
    desk.work()
    assert len(web.got) == 1
    assert len(desk.open(FAILED)) == 1
    with room.client() as client:  # what is acknowledged is not sent any more
        client.acknowledge(alert_id, reviewer=REVIEWER)
    box.closed = False
    clock.now += BACKOFF_S[0]
    desk.work()
    assert box.got == []


@pytest.mark.parametrize(
    ("notify", "why"),
    [
        ({"webhook": WebhookSettings(url="http://127.0.0.1:1/")}, "Connection refused"),  # nobody listens
        ({"webhook": WebhookSettings(url="http://no-such-host.invalid/")}, "ame"),  # as the resolver words it
        (
            {"email": EmailSettings(host="127.0.0.1", port=1, sender="a@b.example", to=("c@d.example",))},
            "Connection refused",
        ),
        ({"webhook": WebhookSettings(url="https://127.0.0.1:1/", ca="none.pem")}, "none.pem, which [notify] names"),
        ({"webhook": WebhookSettings(url="https://127.0.0.1:1/", ca="clinic.toml")}, "clinic.toml, which [notify]"),
    ],
)
def test_a_server_that_is_not_there_is_an_alert(room: Room, notify: dict[str, Any], why: str) -> None:
    clock = Clock()
    desk = Desk(room, clock, timeout_s=2.0, **notify)
    find(room, clock, room.add_study())
    desk.work()
    (sentence,) = desk.open(FAILED)
    assert why in sentence


def test_a_certificate_that_is_not_accepted_is_named(room: Room, web: WebServer, tmp_path: Path) -> None:
    key, pem = tmp_path / "key.pem", tmp_path / "cert.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=alarm.example"]
    subprocess.run([*made, "-keyout", key, "-out", pem], check=True, capture_output=True, timeout=60)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)
    web.socket = context.wrap_socket(web.socket, server_side=True)
    clock = Clock()
    desk = Desk(room, clock, webhook=WebhookSettings(url=web.url.replace("http:", "https:")))
    find(room, clock, room.add_study())
    desk.work()
    assert web.headers == []
    (sentence,) = desk.open(FAILED)
    assert "its certificate is not accepted, self" in sentence


def test_a_server_outside_the_named_networks_is_never_spoken_to(room: Room, web: WebServer) -> None:
    clock = Clock()
    desk = Desk(room, clock, networks=("10.0.0.0/8",), webhook=WebhookSettings(url=web.url))
    find(room, clock, room.add_study())
    desk.work()
    assert web.headers == []
    (sentence,) = desk.open(FAILED)
    assert "notify.networks" in sentence


def test_a_plain_mail_server_gets_nothing_where_encryption_is_asked_for(
    room: Room, mailbox: tuple[Mailbox, int]
) -> None:
    box, port = mailbox
    clock = Clock()
    email = EmailSettings(host="127.0.0.1", port=port, sender="ai@c.example", to=("desk@c.example",))
    desk = Desk(room, clock, email=email)
    find(room, clock, room.add_study())
    desk.work()
    assert box.got == []
    assert desk.open(FAILED)


def test_a_notice_that_hangs_is_an_alert_although_nothing_failed(room: Room, web: WebServer) -> None:
    clock = Clock()
    desk = Desk(room, clock, webhook=WebhookSettings(url=web.url))
    find(room, clock, room.add_study(), hit=Hit(WHAT, 1, (86_400.0,), 0, ()))
    desk.herald.step()  # the messenger hangs in a server that says nothing
    clock.now += STUCK_S + 1
    desk.herald.step()
    assert len(desk.open(FAILED)) == 1
    desk.herald.step()
    with room.database.read() as connection:
        assert [alert.count for alert in alerts.open_alerts(connection) if alert.code == FAILED] == [1]


def test_a_newer_notice_takes_the_place_of_one_that_could_not_leave(room: Room, web: WebServer) -> None:
    clock = Clock()
    web.status = 503
    desk = Desk(room, clock, webhook=WebhookSettings(url=web.url))
    find(room, clock, room.add_study())
    desk.work()
    clock.now += 300
    web.status = 200
    desk.work()
    assert [notice["notice"] for notice in web.got] == [2]
    clock.now += 100
    desk.work()
    assert [notice["notice"] for notice in web.got] == [2]


def test_a_channel_that_was_switched_off_sends_nothing_more(room: Room, web: WebServer) -> None:
    clock = Clock()
    desk = Desk(room, clock, webhook=WebhookSettings(url=web.url))
    find(room, clock, room.add_study())
    desk.herald.step()
    desk.settings = desk.settings.model_copy(update={"notify": NotifySettings()})
    desk.work()
    assert web.headers == []


# ---------------------------------------------------------------- servers that mean harm


def _drip(connection: socket.socket) -> None:
    """A header that comes a byte at a time, so that the server is never silent."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while not over.wait(0.05):
        connection.sendall(b"a")


def _inform(connection: socket.socket) -> None:
    """Answers without end that say that the answer comes."""
    while not over.is_set():
        connection.sendall(b"HTTP/1.1 102 Processing\r\n\r\n" * 200)


def _drip_mail(connection: socket.socket) -> None:
    while not over.wait(0.05):
        connection.sendall(b"2")


def _greet(connection: socket.socket) -> None:
    """A greeting of lines without end, which smtplib keeps all of."""
    while not over.is_set():
        connection.sendall((b"220-" + b"a" * 900 + b"\r\n") * 50)


over = threading.Event()


@pytest.fixture
def hostile(request: pytest.FixtureRequest) -> Iterator[int]:
    """The port of a server that does to whoever connects what the test wishes."""
    over.clear()
    heard = socket.create_server(("127.0.0.1", 0))
    heard.settimeout(0.1)

    def serve() -> None:
        while not over.is_set():
            try:
                connection, _ = heard.accept()
                with connection:
                    request.param(connection)
            except OSError:
                continue  # nobody came, or who came has gone

    thread = threading.Thread(target=serve)
    thread.start()
    yield heard.getsockname()[1]
    over.set()
    thread.join()
    heard.close()


@pytest.mark.parametrize(
    ("hostile", "channel"),
    [(_drip, WEBHOOK), (_inform, WEBHOOK), (_drip_mail, EMAIL), (_greet, EMAIL)],
    indirect=["hostile"],
)
def test_a_server_that_never_comes_to_an_end_is_given_up(room: Room, hostile: int, channel: str) -> None:
    clock = Clock()
    webhook = WebhookSettings(url=f"http://127.0.0.1:{hostile}/")
    email = EmailSettings(host="127.0.0.1", port=hostile, tls="none", sender="a@b.example", to=("c@d.example",))
    one = {"webhook": webhook} if channel == WEBHOOK else {"email": email}
    desk = Desk(room, clock, timeout_s=0.5, **one)
    find(room, clock, room.add_study())
    desk.herald.step()
    before = psutil.Process().memory_info().rss
    began = time.monotonic()
    assert desk.messengers[channel].step()
    assert time.monotonic() - began < START_S + ALTOGETHER * 0.5 + 5
    assert psutil.Process().memory_info().rss - before < 64 << 20  # what the server says is the child's to hear
    assert desk.crew.living() == []
    (sentence,) = desk.open(FAILED)
    assert "did not take the notice: The messenger child" in sentence


@pytest.mark.parametrize("kind", ["missing", "fifo", "folder"])
def test_a_token_file_that_is_none_is_named(room: Room, web: WebServer, kind: str) -> None:
    token = room.home.path / "token"
    if kind == "fifo":
        os.mkfifo(token)
    elif kind == "folder":
        token.mkdir()
    clock = Clock()
    desk = Desk(room, clock, webhook=WebhookSettings(url=web.url, token_file="token"))
    find(room, clock, room.add_study())
    desk.work()
    assert web.headers == []
    (sentence,) = desk.open(FAILED)
    assert str(token) in sentence
