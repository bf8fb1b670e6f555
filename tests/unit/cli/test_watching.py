"""``status --watch``: plain lines when something changed, when the daemon is gone and when it is back."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
from pathlib import Path

import pytest
from control_room import control_room
from screens import NOW, made_status

from clinic_ai.cli.watching import Teller, block, watch
from clinic_ai.domain import Alert
from clinic_ai.home import init_home
from clinic_ai.store import alerts
from clinic_ai.tui import feed
from clinic_ai.tui.feed import Lost, Picture

GONE = Lost("No daemon answers at /run/x.", "Start it with `clinic-ai run`.")


def picture(**changes: object) -> Picture:
    return Picture(made_status(**changes), "watch", None)


def test_a_block_is_printed_once_and_again_when_something_changed(capsys: pytest.CaptureFixture[str]) -> None:
    teller = Teller(as_json=False, clock=lambda: NOW)
    assert teller.tell(picture())
    assert not teller.tell(picture(now=NOW + 60, daemon_resident_bytes=1, disk_free_bytes=2))
    assert teller.tell(picture(studies={"UNROUTED": 1}))
    said = capsys.readouterr().out
    assert said.count("daemon ") == 2
    assert "studies   none yet" in said
    assert "studies   1 UNROUTED" in said
    assert "\x1b" not in said


def test_it_says_once_that_the_daemon_is_gone_and_that_it_is_back(capsys: pytest.CaptureFixture[str]) -> None:
    teller = Teller(as_json=False, clock=lambda: NOW)
    teller.tell(picture())
    assert teller.tell(GONE)
    assert not teller.tell(GONE)
    assert teller.tell(picture())
    said = capsys.readouterr().out
    assert said.count("No daemon answers at /run/x. Start it with `clinic-ai run`. It is asked again") == 1
    assert said.index("The daemon is back.") < said.rindex("studies   none yet")


def test_json_is_a_line_a_change(capsys: pytest.CaptureFixture[str]) -> None:
    teller = Teller(as_json=True, clock=lambda: NOW)
    teller.tell(picture(studies={"DONE": 3}))
    teller.tell(GONE)
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["studies"] == {"DONE": 3}
    assert second == {"daemon": False, "sentence": "No daemon answers at /run/x. Start it with `clinic-ai run`."}


def test_everything_that_is_wrong_stands_in_it() -> None:
    hot = Alert(
        alert_id=7, code="x", subject="s", sentence="It is hot.", remedy="Cool it.", count=1, first_at=NOW, last_at=NOW
    )
    status = made_status(
        may_change=False,
        artefacts={"HELD": 2, "PRELIMINARY": 1},
        files={"QUARANTINED": 4},
        alerts=(hot,),
        inboxes=(
            {"name": "ct", "path": "/ct", "online": False, "sentence": "It does not answer.", "remedy": "Look at it."},
            {"name": "main", "path": "/in", "online": True, "waiting": 1},
            {"name": "quiet", "path": "/q", "online": True},
        ),
        plugin_problems=("Plugin ct cannot be loaded.",),
        runs=(
            {
                "run_id": "R-1",
                "plugin": "xray",
                "state": "RUNNING",
                "dataset_id": "D",
                "created_at": NOW,
                "progress": {"epoch": 2, "epochs": 3, "step": 49, "steps": 100, "message": ""},
            },
            {
                "run_id": "R-2",
                "plugin": "xray",
                "state": "PAUSED",
                "dataset_id": "D",
                "created_at": NOW,
                "error": "No window is open.",
            },
        ),
    )
    lines = list(block(status))
    assert "read-only" in lines[0]
    assert "results   2 held for a person, 1 not signed" in lines
    assert "files     4 in quarantine" in lines
    assert "▲ inbox ct is offline. It does not answer. Look at it." in lines
    assert "inbox     main: 1 file waiting." in lines
    assert not any("quiet" in line for line in lines)
    assert "training  xray R-1 is RUNNING. Epoch 2 of 3, 45 % of all steps." in lines
    assert "training  xray R-2 is PAUSED. No window is open." in lines
    assert "▲ Plugin ct cannot be loaded." in lines
    assert "▲ alert 7: It is hot. Cool it." in lines


def test_control_characters_from_outside_are_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    Teller(as_json=False).tell(picture(plugin_problems=("Plugin \x1b[2J is odd.",)))
    assert "\x1b" not in capsys.readouterr().out


class Heard(io.StringIO):
    """Standard output that somebody waits at."""

    def __init__(self) -> None:
        super().__init__()
        self._more = threading.Condition()

    def write(self, words: str) -> int:
        with self._more:
            self._more.notify_all()
            return super().write(words)

    def waits_for(self, words: str) -> None:
        with self._more:
            assert self._more.wait_for(lambda: words in self.getvalue(), 60), f"{words!r} not in\n{self.getvalue()}"


@pytest.mark.timeout(400)
def test_it_follows_a_daemon_that_goes_and_comes_back_until_ctrl_c(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard, failures = Heard(), []
    monkeypatch.setattr(feed, "UNTOLD_S", 2.0)  # beside other tests the stream may be slow to begin
    monkeypatch.setattr("sys.stdout", heard)

    def happens() -> None:
        try:
            with control_room(home.path) as room:
                heard.waits_for("studies   none yet")
                heard.waits_for("read-only")
                room.add_study(state="UNROUTED")
                heard.waits_for("1 UNROUTED")
                with room.database.write() as c:
                    alerts.raise_alert(c, "test", "appliance", "Something happened.", "Look at it.")
                heard.waits_for("▲ alert 1: Something happened. Look at it.")
            heard.waits_for("No daemon answers at")
            with control_room(home.path):
                heard.waits_for("The daemon is back.")
        except BaseException as error:  # told in the thread of the test
            failures.append(error)
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    home = init_home(tmp_path / "h")
    events = threading.Thread(target=happens)
    events.start()
    watch(home, monitor=True, as_json=False)
    events.join()
    assert not failures, failures
    assert "\x1b" not in heard.getvalue()
