"""The log over both sockets: the newest lines, bounded, found by study, run, worker, level and words."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from control_room import Room, control_room

from clinic_ai.control.log_client import LogClient
from clinic_ai.control.log_views import Level
from clinic_ai.control.views import Role, TopicView
from clinic_ai.errors import NotAllowed
from clinic_ai.logs import Recent

STUDY, RUN = "S-20261121-7F3K9QXB", "R-20261121-7F3K9QXB"


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    with control_room(tmp_path / "h") as served:
        yield served


@pytest.fixture
def log(room: Room) -> Recent:
    kept: Recent = room.server._app.state.services.log
    kept.add("info", "job.done", {"job": "J-1", "study": STUDY, "plugin": "xray"})
    kept.add("warning", "alert", {"subject": STUDY, "sentence": "It is held."})
    kept.add("error", "run.failed", {"run": RUN, "error": "OSError", "at": ["a.py:1", "b.py:2"]})
    kept.add("info", "network.listening", {"port": 11112})
    return kept


def test_it_is_found_by_study_run_worker_level_and_words(room: Room, log: Recent) -> None:
    with LogClient(room.home, monitor=True) as client:

        def events(**wanted: object) -> list[str]:
            return [line.event for line in client.log(**wanted).lines]  # type: ignore[arg-type]

        assert events() == ["job.done", "alert", "run.failed", "network.listening"]
        assert events(study=STUDY) == ["job.done", "alert"]
        assert events(run=RUN) == ["run.failed"]
        assert events(job="J-1") == ["job.done"]
        assert events(worker="xray") == ["job.done"]
        assert events(worker="network") == ["network.listening"]
        assert events(level=Level.WARNING) == ["alert", "run.failed"]
        assert events(words="HELD is") == ["alert"]
        assert events(limit=1) == ["network.listening"]
        assert events(after=1, limit=1) == ["alert"]
        failed = client.log(run=RUN).lines[0]
    assert failed.line == f"run.failed run={RUN} error=OSError at=a.py:1, b.py:2"


def test_who_reads_on_learns_what_was_missed_and_that_a_daemon_began_anew(room: Room, log: Recent) -> None:
    with LogClient(room.home) as client:
        page = client.log(after=4)
        assert (page.lines, page.last, page.missed) == ((), 4, 0)
        for number in range(2500):
            log.add("info", "many", {"number": number})
        page = client.log(after=4, limit=2000)
        assert page.missed == 500
        assert [line.seq for line in page.lines] == list(range(505, 2505))
        assert [line.seq for line in client.log(after=9999, limit=2).lines] == [2503, 2504]


def test_it_keeps_no_more_than_so_many_bytes_and_cuts_what_is_long() -> None:
    kept = Recent(size_bytes=100_000)
    for _ in range(1000):
        kept.add("info", "long", {"value": "x" * 5000})
    assert sum(line.size_bytes for line in kept.lines()) <= 100_000
    assert len(kept.lines()) > 30
    assert len(kept.lines()[-1].fields["value"]) == 2000
    assert kept.lines()[-1].seq == 1000


def test_what_is_logged_is_kept_as_it_is_written() -> None:
    says = (
        "import structlog, logging\n"
        "from clinic_ai.logs import RECENT, configure\n"
        "configure('info', 'json')\n"
        "structlog.get_logger().debug('too.light')\n"
        "structlog.get_logger().warning('odd', study='S-1', count=3)\n"
        "logging.getLogger('x').error('MUSTER^HANS')\n"
        "configure('info', 'json')\n"
        "print([(l.level, l.event, dict(l.fields)) for l in RECENT.lines()])\n"
    )
    ended = subprocess.run([sys.executable, "-c", says], capture_output=True, text=True, timeout=60, check=True)
    assert [json.loads(line)["event"] for line in ended.stderr.splitlines()] == ["odd", "library.logged"]
    assert "('warning', 'odd', {'study': 'S-1', 'count': '3'})" in ended.stdout
    assert "library.logged" in ended.stdout
    assert "MUSTER" not in ended.stdout
    assert "too.light" not in ended.stdout


def test_a_new_line_is_told_as_a_topic(room: Room, log: Recent) -> None:
    heard = threading.Event()

    def follow() -> None:
        with room.client() as client:
            for news in client.follow():
                if news == TopicView(topic="start"):
                    log.add("info", "new", {})
                if news == TopicView(topic="log"):
                    heard.set()
                    return

    threading.Thread(target=follow, daemon=True).start()
    assert heard.wait(20)


def test_changes_are_told_to_whoever_has_a_role_and_are_only_what_moved(room: Room) -> None:
    study_id = room.add_study()
    with LogClient(room.home, monitor=True) as client:
        changes = client.changes().changes
        assert study_id in {change.subject for change in changes}
        assert [change.seq for change in changes] == sorted(change.seq for change in changes)
        assert client.changes(after=changes[-1].seq).changes == ()
        assert client.changes(limit=1).changes == changes[-1:]


def test_nobody_without_a_role_reads_it(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clinic_ai.control.door.role_of", lambda *_: None)
    with LogClient(room.home) as client, pytest.raises(NotAllowed):
        client.log()
    monkeypatch.setattr("clinic_ai.control.door.role_of", lambda *_: Role.TECHNICIAN)
    with LogClient(room.home) as client:
        assert client.log(limit=1).lines == ()
