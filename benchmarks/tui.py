"""What the terminal's screens cost: first frame, memory, a key's way to the screen, and standing idle.

    python benchmarks/tui.py [--rounds 5] [--studies 10000] [--idle 20]

Everything is measured from outside, in a pseudo-terminal of 140 x 40, as a person would see it:

- first frame: from the start of the process until the line with the names of the screens is drawn
- queue: from the start of the process until the studies of a daemon stand in the queue
- key to screen: from a key that moves the cursor in the queue until the terminal gets something new; the daemon has
  ``--studies`` studies, the queue shows the newest of them
- memory: RSS once all that is shown is there and every other screen has been loaded
- idle: CPU time of the process over ``--idle`` seconds in which nothing happens

The floor is a bare Textual application with a table of as many rows, in the same terminal by turns. Budgets: first
frame 1.5 s, key to screen 50 ms, memory 120 MB, idle 1 % of a core.
"""

from __future__ import annotations

import argparse
import os
import pty
import select
import statistics
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
from parts.crowd import fill
from parts.daemons import started, stopped

from clinic_ai.home import init_home

SIZE = (40, 140)
FRAME_BUDGET_S = 1.5
KEY_BUDGET_MS = 50.0
MEMORY_BUDGET = 120e6
IDLE_BUDGET = 0.01
KEYS = 40
SETTLE_S = 6.0
PATIENCE_S = 60.0
ROWS = 500
"""Rows of the queue, which shows the newest studies."""
BARE = f"""
from textual.app import App
from textual.widgets import DataTable, Footer, Static

class Bare(App):
    BINDINGS = [("j", "down", "Down")]

    def compose(self):
        yield Static("Models")
        yield DataTable(cursor_type="row")
        yield Footer()

    def on_mount(self):
        table = self.query_one(DataTable)
        table.add_columns(*"abcdefg")
        table.add_rows([f"S-20260101-{{row:08d}}"] * 7 for row in range({ROWS}))
        table.focus()

    def action_down(self):
        self.query_one(DataTable).action_cursor_down()

Bare().run()
"""


class Terminal:
    """A process in a pseudo-terminal, and the time since it was started."""

    def __init__(self, command: Sequence[str]) -> None:
        self._ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, SIZE)
        self.began = time.perf_counter()
        self._process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"},
        )
        os.close(theirs)
        self.seen = psutil.Process(self._process.pid)

    def shows(self, words: bytes) -> float:
        """Return the seconds from the start until the words were drawn."""
        drawn = b""
        while words not in drawn:
            if time.perf_counter() - self.began > PATIENCE_S:
                raise SystemExit(f"{words!r} was not drawn within {PATIENCE_S:.0f} s.")
            drawn += self._read(1.0)
        return time.perf_counter() - self.began

    def answer_ms(self, key: bytes) -> float:
        """Return the milliseconds from a key until something new was drawn."""
        while self._read(0.05):
            pass
        pressed = time.perf_counter()
        os.write(self._ours, key)
        if not self._read(5.0):
            raise SystemExit("A key had no answer within 5 s.")
        return (time.perf_counter() - pressed) * 1e3

    def rest(self, seconds: float) -> float:
        """Return the share of a core that the process took in so many seconds."""
        before, until = self.seen.cpu_times(), time.perf_counter() + seconds
        while (left := until - time.perf_counter()) > 0:
            self._read(left)
        after = self.seen.cpu_times()
        return (after.user + after.system - before.user - before.system) / seconds

    def _read(self, patience_s: float) -> bytes:
        return os.read(self._ours, 65536) if select.select([self._ours], [], [], patience_s)[0] else b""

    def end(self) -> None:
        """End the process and close the terminal."""
        self._process.kill()
        self._process.wait()
        os.close(self._ours)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--studies", type=int, default=10_000)
    parser.add_argument("--idle", type=float, default=20.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="clinic-ai-tui-") as folder:
        home = init_home(Path(folder) / "home")
        fill(home, studies=options.studies, files=options.studies, receiving=0)
        daemon = started(home)
        try:
            ours = [sys.executable, "-m", "clinic_ai", "tui", "--home", str(home.path)]
            bare = [sys.executable, "-c", BARE]
            _first(bare, b"Models"), _first(ours, b"Models")  # the disk's cache is warm from here on
            turns = [
                (_first(bare, b"Models"), _first(ours, b"Models"), _first(ours, b"P-0")) for _ in range(options.rounds)
            ]
            floor, frame, queue = (statistics.median(turn[which] for turn in turns) for which in range(3))
            print(
                f"{options.studies} studies; medians of {options.rounds} rounds; floor: a bare Textual table of {ROWS} rows"
            )
            _line("first frame", f"{frame:.2f} s", f"{floor:.2f} s", frame / floor, frame <= FRAME_BUDGET_S, "1.5 s")
            _line("queue shown", f"{queue:.2f} s", f"{floor:.2f} s", queue / floor, None, "")
            _long(bare, ours, options.idle)
        finally:
            stopped(daemon)


def _first(command: Sequence[str], words: bytes) -> float:
    terminal = Terminal(command)
    try:
        return terminal.shows(words)
    finally:
        terminal.end()


def _long(bare: Sequence[str], ours: Sequence[str], idle_s: float) -> None:
    """Measure what shows only after a while: keys, memory, idleness."""
    found = []
    for command, words in ((bare, b"Models"), (ours, b"P-0")):
        terminal = Terminal(command)
        try:
            terminal.shows(words)
            terminal.rest(SETTLE_S)
            times = sorted(terminal.answer_ms(b"j") for _ in range(KEYS))
            terminal.rest(SETTLE_S)
            found.append((times, terminal.rest(idle_s), terminal.seen.memory_info().rss))
        finally:
            terminal.end()
    (floor_ms, floor_idle, floor_rss), (ms, idle, rss) = found
    mid, floor_mid, worst = statistics.median(ms), statistics.median(floor_ms), ms[int(len(ms) * 0.95)]
    kept = worst <= KEY_BUDGET_MS
    _line(
        "key to screen",
        f"{mid:.1f} ms, 95 % within {worst:.1f} ms",
        f"{floor_mid:.1f} ms",
        mid / floor_mid,
        kept,
        "50 ms",
    )
    _line("memory", f"{rss / 1e6:.0f} MB", f"{floor_rss / 1e6:.0f} MB", rss / floor_rss, rss <= MEMORY_BUDGET, "120 MB")
    _line("idle", f"{idle:.2%} of a core", f"{floor_idle:.2%}", None, idle <= IDLE_BUDGET, "1 %")


def _line(name: str, ours: str, floor: str, ratio: float | None, kept: bool | None, budget: str) -> None:
    times = "" if ratio is None else f"   {ratio:.2f} × floor"
    verdict = "" if kept is None else f"   budget {budget}: {'kept' if kept else 'MISSED'}"
    print(f"{name:<14} {ours}   (floor {floor}){times}{verdict}")


if __name__ == "__main__":
    main()
