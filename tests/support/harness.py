"""A whole appliance as real processes: a home, a daemon in a subprocess, its log and its children."""

from __future__ import annotations

import json
import os
import queue
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from clinic_ai.home import Home

QUICK = """
[[inbox]]
name = "inbox"
path = "inbox"
settle_s = 0.1

[ingest]
rescan_s = 0.2
quiet_period_s = 0.3
adaptive_quiet = false
gap_wait_s = 0.3

[execution]
backoff_s = [0.1]
max_attempts = 5
max_restarts = 1000
memory_mb = 8192

[results]
institution = "Test clinic"
"""

ROOMY = """
[training.budget]
disk_reserve_mb = 0
free_memory_mb = 0
"""
"""Training begins however full the disk and the memory of the machine are that runs the tests."""


def clinic_ai(home: Home, *arguments: str, status: int = 0) -> Any:
    """Run a verb with --json and return its document."""
    done = subprocess.run(
        [sys.executable, "-m", "clinic_ai", *arguments, "--home", str(home.path), "--json"],
        capture_output=True,
        text=True,
        timeout=420,  # a training is nice to everybody
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == status, done.stderr + done.stdout
    return json.loads(done.stdout)


class Daemon:
    """One run of ``clinic-ai run`` and what it logs."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.lines: queue.Queue[dict[str, Any]] = queue.Queue()
        self.seen: list[dict[str, Any]] = []
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "clinic_ai", "run", "--home", str(home.path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            try:
                entry = json.loads(line)
            except ValueError:
                entry = {"event": "not json", "line": line.decode(errors="replace")}
            self.seen.append(entry)
            self.lines.put(entry)
        self.lines.put({"event": "end of log"})

    def wait_for(self, event: str, timeout_s: float = 60) -> dict[str, Any]:
        """Return the next log entry of this name; fail the test if the daemon ends before."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                entry = self.lines.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                pytest.fail(f"no {event!r} within {timeout_s} s; last: {self.seen[-8:]}")
            if entry["event"] == event:
                return entry
            if entry["event"] == "end of log" and event != "end of log":
                pytest.fail(f"the daemon ended while {event!r} was awaited; last: {self.seen[-8:]}")

    def children(self, kind: str = "") -> list[psutil.Process]:
        """Return the living children, of one kind if given."""
        found = []
        for child in psutil.Process(self.process.pid).children(recursive=True):
            try:
                command = " ".join(child.cmdline())
            except psutil.Error:
                continue
            if f"clinic_ai.workers.{kind}" in command:
                found.append(child)
        return found

    def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


def rows(home: Home, query: str, *values: object) -> list[sqlite3.Row]:
    """Read the database of a home from outside, without waiting for or disturbing the daemon."""
    connection = sqlite3.connect(f"file:{home.database}?mode=ro", uri=True, timeout=30)
    connection.row_factory = sqlite3.Row
    try:
        return connection.execute(query, values).fetchall()
    finally:
        connection.close()


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 90) -> None:
    """Wait for a condition that no event announces; fail the test when it does not come true.

    The longer it takes, the less often it is looked at: asking takes processor time from what is waited for.
    """
    began = time.monotonic()
    while not condition():
        waited = time.monotonic() - began
        if waited > timeout_s:
            pytest.fail(f"{what} did not happen within {timeout_s} s")
        time.sleep(min(0.5, max(0.05, waited / 20)))
