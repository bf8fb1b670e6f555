"""The screen and its terminal: it needs one, and does not outlive it."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import termios
import time
from pathlib import Path

from clinic_ai.home import init_home

SCREEN = [sys.executable, "-m", "clinic_ai", "tui", "--home"]


def test_without_a_terminal_it_is_refused_in_words(tmp_path: Path) -> None:
    done = subprocess.run(
        [*SCREEN, str(tmp_path)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "needs a terminal" in done.stderr


def test_it_ends_when_its_terminal_is_gone(tmp_path: Path) -> None:
    home = init_home(tmp_path / "h")
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    # The hang-up signal is ignored, as nohup and some multiplexers do: the screen has to notice by itself.
    screen = subprocess.Popen(
        ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *SCREEN, str(home.path)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm-256color"},
    )
    os.close(theirs)
    try:
        drawn, deadline = b"", time.monotonic() + 60
        while b"no daemon" not in drawn:
            assert time.monotonic() < deadline, "the screen was not drawn"
            if select.select([ours], [], [], 1.0)[0]:
                drawn += os.read(ours, 65536)
        os.close(ours)
        screen.wait(timeout=30)
    finally:
        screen.kill()
        screen.wait()
