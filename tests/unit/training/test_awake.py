"""The lock against sleeping: held while wanted, gone with its holder, and no error where it cannot be had."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from clinic_ai.training.awake import COMMAND, Awake


@pytest.fixture
def inhibit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a command like systemd-inhibit first in PATH: it notes its arguments and runs the rest."""
    place = tmp_path / "systemd-inhibit"
    place.write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/asked\nwhile [ "${{1#--}}" != "$1" ]; do shift; done\nexec "$@"\n'
    )
    place.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path / "asked"


def holders() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]


def test_it_is_held_until_it_is_released(inhibit: Path) -> None:
    before, awake = holders(), Awake()
    awake.hold()
    awake.hold()
    (held,) = set(holders()) - set(before)
    awake.release()
    assert not held.is_running()
    assert awake.note == ""
    assert inhibit.read_text().startswith("--what=sleep:idle --who=clinic-ai")


def test_it_ends_with_its_holder_whatever_becomes_of_that(inhibit: Path) -> None:
    held = (
        "from clinic_ai.training.awake import Awake; a = Awake(); a.hold(); print(a._process.pid, flush=True); input()"
    )
    holder = subprocess.Popen([sys.executable, "-c", held], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    lock = psutil.Process(int(holder.stdout.readline()))
    holder.kill()
    holder.communicate()
    gone, alive = psutil.wait_procs([lock], timeout=20)
    assert (gone, alive) == ([lock], [])


def test_where_it_is_absent_that_is_one_note(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    awake = Awake()
    awake.hold()
    awake.hold()
    assert awake.note == "The machine may go to sleep during a run: there is no systemd-inhibit here."
    awake.release()
    assert awake.note == ""


def test_where_it_is_refused_that_is_one_note() -> None:
    awake = Awake(("false",))
    awake.hold()
    assert awake._process is not None
    awake._process.wait()
    awake.hold()
    assert awake.note == "The machine may go to sleep during a run: systemd does not let it be kept awake."
    awake.hold()
    assert awake._process is None
    awake.release()


def test_the_command_is_that_of_systemd() -> None:
    assert COMMAND[0] == "systemd-inhibit"
