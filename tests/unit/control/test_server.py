"""Sockets, peers and roles, on real Unix sockets with real processes at the other end."""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from control_room import NAME, SECRET, Room
from sqlalchemy import text

from clinic_ai.control import door, server
from clinic_ai.control.client import Client, NoDaemon
from clinic_ai.control.door import MAX_BODY_BYTES
from clinic_ai.control.people import SO_PEERPIDFD, descends_from, peer_of, user_name
from clinic_ai.control.server import MAX_CONNECTIONS, THREADS
from clinic_ai.control.sockets import bind
from clinic_ai.domain import GuardAction
from clinic_ai.errors import HomeError, NotAllowed, NotFound
from clinic_ai.home import Home

OTHER_UID = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user to knock as")

_KNOCK = """
import json, os, socket, sys, time
started = os.getpid()
if os.fork():
    os._exit(0)  # the one who asks is somebody else's child, as people's processes are
while os.getppid() == started:
    time.sleep(0.001)
path, uid, method, target, body = sys.argv[1:]
knock = socket.socket(socket.AF_UNIX)
# Group 0 owns the sockets of a test run as root; the user is dropped first, as the kernel notes who connects.
os.setgid(0); os.setuid(int(uid))
knock.connect(path)
head = f"{method} {target} HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\nContent-Length: {len(body)}\\r\\n\\r\\n"
knock.sendall((head + body).encode())
answer = b""
while piece := knock.recv(65536):
    answer += piece
head, _, body = answer.partition(b"\\r\\n\\r\\n")
print(json.dumps([int(head.split()[1]), body.decode()]))
"""


def raw(path: Path, head: str, body: bytes = b"") -> bytes:
    """Send bytes as they are; return the whole answer."""
    with socket.socket(socket.AF_UNIX) as knock:
        knock.settimeout(20)
        knock.connect(str(path))
        knock.sendall(head.encode() + body)
        answer = b""
        while piece := knock.recv(65536):
            answer += piece
    return answer


@pytest.fixture
def reachable(room: Room) -> Room:
    """A room whose sockets another user can reach: every folder above, and the sockets' group, lets it pass."""
    for folder in [room.home.run, *room.home.run.parents]:
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    return room


def knock(
    room: Room, method: str, target: str, *, monitor: bool = False, body: str = ""
) -> tuple[int, dict[str, object]]:
    """Ask as another user."""
    path = room.home.monitor_socket if monitor else room.home.control_socket
    done = subprocess.run(
        [sys.executable, "-S", "-c", _KNOCK, str(path), str(OTHER_UID), method, target, body],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout, done.stderr
    status, answer = json.loads(done.stdout)
    return status, json.loads(answer)


def refusals(room: Room) -> list[tuple[str, str]]:
    with room.database.read() as c:
        rows = c.execute(text("SELECT actor, details FROM audit WHERE action = 'access.refused' ORDER BY seq"))
        return [(row.actor, json.loads(row.details)["reason"]) for row in rows]


# ---------------------------------------------------------------- sockets


def test_sockets_are_closed_to_others(room: Room) -> None:
    for path in (room.home.control_socket, room.home.monitor_socket):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660


def test_stop_removes_the_sockets_and_the_client_says_so(room: Room) -> None:
    with room.client() as client:
        client.status()
        room.server.stop()
        assert not room.home.control_socket.exists()
        with pytest.raises(NoDaemon, match="No daemon answers at") as found:
            client.status()
    assert "clinic-ai run" in found.value.remedy


def test_stop_ends_a_stream_that_is_read(room: Room) -> None:
    with room.client() as client:
        events = client.events(after=0)
        study_id = room.add_study()
        assert next(events).action == "study.open"
        room.server.stop()
        assert {event.subject for event in events} <= {study_id}
    assert not room.server._thread.is_alive()


def test_leftover_of_a_crash_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    bind(path).close()


def test_taken_socket_is_refused(room: Room) -> None:
    with pytest.raises(HomeError, match="Another daemon answers at"):
        bind(room.home.control_socket)
    with room.client() as client:
        assert client.status().person == user_name(os.geteuid())


def test_another_file_in_the_way_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("mine")
    with pytest.raises(HomeError, match="not a socket"):
        bind(tmp_path / "s")
    assert (tmp_path / "s").read_text() == "mine"


def test_long_path_and_unknown_group_are_said(tmp_path: Path) -> None:
    with pytest.raises(HomeError, match="107"):
        bind(tmp_path / ("x" * 120))
    with pytest.raises(HomeError, match="no such group"):
        bind(tmp_path / "s", "no-such-group-here")


def test_client_without_a_daemon(tmp_path: Path) -> None:
    with Client(Home(tmp_path)) as client, pytest.raises(NoDaemon):
        client.status()


# ---------------------------------------------------------------- who may what

_CHILD = """
import os, subprocess, sys
from pathlib import Path
from clinic_ai.control.client import Client
from clinic_ai.errors import NotAllowed
from clinic_ai.home import Home
if sys.argv[2] == "1":
    sys.exit(subprocess.run([sys.executable, "-c", sys.argv[3], sys.argv[1], "0", ""]).returncode)
with Client(Home(Path(sys.argv[1])), monitor=False) as client:
    try:
        client.status()
    except NotAllowed as error:
        print(error.message)
"""


@pytest.mark.parametrize("grandchild", ["0", "1"])
def test_a_child_of_the_daemon_is_nobody_here(room: Room, grandchild: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(room.home.path), grandchild, _CHILD],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "A process that the daemon started" in done.stdout
    assert refusals(room) == [(user_name(os.geteuid()), "a child of the daemon")]
    with room.client() as client:
        assert client.status().role.value == "administrator"


def test_who_has_gone_when_the_daemon_looks_may_have_been_a_child(tmp_path: Path) -> None:
    heard = bind(tmp_path / "s")
    code = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    subprocess.run([sys.executable, "-S", "-c", code, str(tmp_path / "s")], check=True, timeout=60)
    with heard.accept()[0] as connection:
        assert peer_of(connection, readonly=False).child
    heard.close()


def test_descent_is_read_from_the_kernel() -> None:
    assert descends_from(os.getpid(), os.getppid())
    assert not descends_from(os.getpid(), os.getpid())
    assert not descends_from(1, os.getpid())


_HIDDEN = """
import ctypes, os, subprocess, sys
from clinic_ai.control.people import descends_from
OTHER = 65534
mount = ["mount", "-t", "proc", "-o", "hidepid=invisible", "proc", "/proc"]
if ctypes.CDLL(None).unshare(0x20000):  # CLONE_NEWNS
    sys.exit(77)
if subprocess.run(["mount", "--make-rprivate", "/"]).returncode or subprocess.run(mount).returncode:
    sys.exit(77)
says, heard = os.pipe()
peer = os.fork()
if not peer:
    os.setgroups([]); os.setgid(OTHER); os.setuid(OTHER)  # the group 0 sees everything
    os.execvp("sleep", ["sleep", "60"])  # as sudo does: what only changed its user would be hidden itself
os.close(heard)
os.read(says, 1)  # ends with the program that is replaced
daemon = os.fork()
if not daemon:
    os.setgroups([]); os.setgid(OTHER); os.setuid(OTHER)  # the group 0 sees everything
    hidden = not os.path.exists(f"/proc/{os.getppid()}") and os.path.exists(f"/proc/{peer}")
    gone = os.fork() or os._exit(0)
    os.waitpid(gone, 0)
    print(hidden, descends_from(peer, os.getpid()), descends_from(gone, os.getpid()), flush=True)
    os._exit(0)
os.waitpid(daemon, 0)
os.kill(peer, 9)
"""


@needs_root
def test_a_parent_that_proc_hides_is_no_child_of_the_daemon() -> None:
    done = subprocess.run([sys.executable, "-c", _HIDDEN], capture_output=True, text=True, check=False, timeout=60)
    if done.returncode == 77:
        pytest.skip("this machine does not let root mount /proc")
    assert done.stdout.split() == ["True", "False", "True"], done.stderr


class _Older(socket.socket):
    """A socket of a kernel that answers the question for the peer's handle with an error."""

    error = 0

    def getsockopt(self, level: int, option: int, size: int = 0) -> Any:
        if option == SO_PEERPIDFD:
            raise OSError(self.error, os.strerror(self.error))
        return super().getsockopt(level, option, size) if size else super().getsockopt(level, option)


@pytest.mark.parametrize(("error", "child"), [(errno.ENOPROTOOPT, False), (errno.ESRCH, True), (errno.EINVAL, True)])
def test_only_a_kernel_without_handles_is_asked_for_the_number(error: int, *, child: bool) -> None:
    one, other = socket.socketpair()  # our peer is this very process, which is no child of its own
    with one, _Older(fileno=other.detach()) as older:
        older.error = error
        assert peer_of(older, readonly=False).child is child


def test_monitor_socket_refuses_every_change(room: Room) -> None:
    study_id = room.add_study(state="UNROUTED")
    with room.client(monitor=True) as client:
        assert not client.status().may_change
        with pytest.raises(NotAllowed, match="monitor socket only reads"):
            client.retry(study_id)
        for method in ("DELETE", "PUT", "PATCH", "OPTIONS", "POST"):
            head = f"{method} /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            assert b" 403 " in raw(room.home.monitor_socket, head).split(b"\r\n")[0]
        assert client.study(study_id).versions[0].study.state == "UNROUTED"
    assert (user_name(os.geteuid()), "monitor socket") in refusals(room)


def test_made_up_methods_are_one_refusal(room: Room) -> None:
    for method in ("BREW", "WHEN", "A" * 1000):
        assert b" 403 " in raw(room.home.monitor_socket, f"{method} / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert refusals(room) == [(user_name(os.geteuid()), "monitor socket")]


@needs_root
def test_unknown_user_is_refused_and_written_down_once(reachable: Room) -> None:
    name = user_name(OTHER_UID)
    for _ in range(2):
        status, answer = knock(reachable, "GET", "/openapi.json")
        assert status == 403
        assert answer["detail"] == f"The user {name} has no role here."
    assert refusals(reachable) == [(name, "unknown person")]


@needs_root
def test_roles_are_those_of_clinic_toml_and_change_with_it(reachable: Room) -> None:
    study_id = reachable.add_study(state="DONE")
    reachable.add_result(study_id)
    name = user_name(OTHER_UID)

    reachable.allow(technicians=(name,))
    status, answer = knock(reachable, "GET", f"/v1/studies/{study_id}")
    assert status == 200
    assert SECRET not in json.dumps(answer)
    assert answer["versions"][0]["artefacts"][0]["released"] is None
    assert knock(reachable, "POST", "/v1/models/rollback", body='{"plugin": "echo"}')[0] == 403
    assert knock(reachable, "POST", f"/v1/studies/{study_id}/retry")[0] == 200
    assert knock(reachable, "POST", f"/v1/studies/{study_id}/retry", monitor=True)[0] == 403

    reachable.allow(technicians=(), clinicians=(name,))
    assert SECRET in json.dumps(knock(reachable, "GET", f"/v1/studies/{study_id}")[1])
    status, answer = knock(reachable, "GET", f"/v1/studies/{study_id}", monitor=True)
    assert (status, SECRET in json.dumps(answer), answer["content"]) == (200, False, False)
    assert knock(reachable, "POST", "/v1/reload")[0] == 403

    reachable.allow(clinicians=(), administrators=(name,))
    assert knock(reachable, "POST", "/v1/reload")[0] == 200
    assert (name, "not administrator") in refusals(reachable)


def test_the_monitor_socket_does_not_tell_what_studies_show(room: Room) -> None:
    study_id = room.add_study(state="DONE")
    room.add_result(study_id)
    with room.client() as client:
        assert SECRET in client.study(study_id).model_dump_json()
    with room.client(monitor=True) as client:
        found = client.study(study_id)
        assert SECRET not in found.model_dump_json()
        assert not found.content


def test_identity_never_leaves_and_held_text_is_not_read(room: Room) -> None:
    study_id = room.add_study(state="DONE")
    room.add_result(study_id, GuardAction.HOLD)
    with room.client() as client:
        found = client.study(study_id)
        everything = found.model_dump_json() + client.studies().model_dump_json() + client.status().model_dump_json()
        everything += client.files().model_dump_json() + client.metrics()
    assert NAME not in everything
    # By itself: among the digits of a time or a hash it comes up by chance.
    assert re.search(r"(?<![\w.])4711(?![\w.])", everything) is None
    assert SECRET not in everything
    assert found.versions[0].artefacts[0].state == "HELD"


# ---------------------------------------------------------------- size


def test_large_and_unmeasured_requests_are_refused(room: Room) -> None:
    path = room.home.control_socket
    start = "POST /v1/models/import HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    large = raw(path, start + f"Content-Length: {MAX_BODY_BYTES + 1}\r\n\r\n")
    assert b" 413 " in large.split(b"\r\n")[0]
    assert b"application/problem+json" in large
    assert b" 411 " in raw(path, start + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n").split(b"\r\n")[0]
    assert b" 400 " in raw(path, "GET / HTTP/1.1\r\nX: " + "a" * 100_000 + "\r\n\r\n").split(b"\r\n")[0]
    with room.client() as client:
        assert client.status().version


def test_a_request_whose_body_does_not_come_gives_its_place_back(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "BODY_S", 0.1)
    start = "POST /v1/models/import HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    answer = raw(room.home.control_socket, start + "Content-Length: 1000\r\n\r\n", b"{")
    assert b" 408 " in answer.split(b"\r\n")[0]
    assert b"came to a halt" in answer


@pytest.mark.parametrize("limit", ["MAX_HELD", "MAX_OWN"])
def test_connections_beyond_the_limit_are_cut_and_the_others_stay(
    room: Room, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, limit, 20)
    held = []
    for _ in range(20 + 3):
        knock = socket.socket(socket.AF_UNIX)
        knock.settimeout(20)
        knock.connect(str(room.home.control_socket))
        held.append(knock)
    for knock in held[20:]:
        assert knock.recv(1) == b""
    held[0].setblocking(False)
    with pytest.raises(BlockingIOError):
        held[0].recv(1)
    for knock in held:
        knock.close()
    assert room.client().status().home


def test_whoever_crowds_the_monitor_socket_keeps_nobody_from_the_control_socket(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_OWN", MAX_CONNECTIONS + 1)
    held = [socket.socket(socket.AF_UNIX) for _ in range(MAX_CONNECTIONS)]
    for knock in held:
        knock.connect(str(room.home.monitor_socket))
    crowded = raw(room.home.monitor_socket, "GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b" 503 " in crowded.split(b"\r\n")[0]
    assert room.client().status().home
    for knock in held:
        knock.close()


@needs_root
def test_whoever_crowds_a_socket_keeps_nobody_else_from_it(reachable: Room) -> None:
    held = [socket.socket(socket.AF_UNIX) for _ in range(MAX_CONNECTIONS)]
    for one in held:
        one.connect(str(reachable.home.control_socket))
    status, _ = knock(reachable, "GET", "/v1/status")
    assert status == 403  # a stranger, but heard
    for one in held:
        one.close()


def test_a_connection_that_asks_nothing_is_cut(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "FIRST_REQUEST_S", 0.1)
    with socket.socket(socket.AF_UNIX) as knock:
        knock.settimeout(20)
        knock.connect(str(room.home.control_socket))
        knock.sendall(b"GET /v1/sta")
        assert knock.recv(1) == b""


def test_what_takes_long_keeps_nobody_from_the_rest(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on, begun = threading.Event(), threading.Semaphore(0)

    def compare(*_: Any) -> None:
        begun.release()
        goes_on.wait(60)
        raise NotFound("There is no file 1.")

    monkeypatch.setattr("clinic_ai.control.file_desk.compare", compare)
    head = "GET /v1/files/1/comparison HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with ThreadPoolExecutor(2 * THREADS) as people:
        asked = [people.submit(raw, room.home.monitor_socket, head) for _ in range(2 * THREADS)]
        try:
            assert begun.acquire(timeout=20)
            assert room.client().status().home
            assert not any(one.done() for one in asked)
        finally:
            goes_on.set()
        assert all(b" 404 " in one.result(60).split(b"\r\n")[0] for one in asked)
