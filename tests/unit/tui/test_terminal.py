"""The screen and its terminal: it needs one, and does not outlive it."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from clinic_ai.home import init_home

SCREEN = [sys.executable, "-m", "clinic_ai", "tui", "--home"]


def test_without_a_terminal_it_is_refused_in_words(tmp_path: Path) -> None:
    done = subprocess.run(
        [*SCREEN, str(tmp_path)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "needs a terminal" in done.stderr


def opened(command: list[str], **environment: str) -> tuple[subprocess.Popen[bytes], int, int]:
    """Start a command in a terminal; return it, our end of the terminal and the other."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    screen = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm-256color", **environment},
    )
    return screen, ours, theirs


def read_until(words: bytes, ours: int) -> bytes:
    """Return what was drawn when the words are among it."""
    drawn, deadline = b"", time.monotonic() + 60
    while words not in drawn:
        assert time.monotonic() < deadline, f"{words!r} was not drawn: {drawn!r}"
        if select.select([ours], [], [], 1.0)[0]:
            drawn += os.read(ours, 65536)
    return drawn


def test_it_ends_when_its_terminal_is_gone(tmp_path: Path) -> None:
    home = init_home(tmp_path / "h")
    # The hang-up signal is ignored, as nohup and some multiplexers do: the screen has to notice by itself.
    command = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *SCREEN, str(home.path)]
    screen, ours, theirs = opened(command)
    os.close(theirs)
    try:
        read_until(b"no daemon", ours)
        os.close(ours)
        screen.wait(timeout=30)
    finally:
        screen.kill()
        screen.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_the_terminal_is_as_it_was(tmp_path: Path, number: signal.Signals) -> None:
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip(f"{number.name} is ignored by whoever started the tests, such as nohup")
    home = init_home(tmp_path / "h")
    screen, ours, theirs = opened([*SCREEN, str(home.path)])
    before = termios.tcgetattr(theirs)
    try:
        read_until(b"no daemon", ours)
        assert termios.tcgetattr(theirs) != before
        screen.send_signal(number)
        drawn = read_until(b"\x1b[?1049l", ours)  # back from the alternate screen
        assert b"\x1b[?1003l" in drawn  # the mouse is the terminal's own again
        assert screen.wait(timeout=30) == 128 + number
        assert termios.tcgetattr(theirs) == before
    finally:
        screen.kill()
        screen.wait()
        os.close(ours)
        os.close(theirs)


def test_a_terminal_that_takes_no_signs_is_refused_in_words(tmp_path: Path) -> None:
    screen, ours, theirs = opened([*SCREEN, str(tmp_path)], PYTHONIOENCODING="latin-1", COLUMNS="200")
    try:
        assert b"LANG=C.UTF-8" in read_until(b"status --watch", ours)
        assert screen.wait(timeout=30) == 2
    finally:
        screen.kill()
        screen.wait()
        os.close(ours)
        os.close(theirs)
