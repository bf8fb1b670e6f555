"""A real daemon in a process of its own, for benchmarks of the whole."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil

from clinic_ai.control.sockets import answers
from clinic_ai.home import Home

START_S = 60.0
STOP_S = 120.0


def started(home: Home, log: int) -> psutil.Popen:
    """Start a daemon over a home and wait until it answers; its log goes to the descriptor ``log``.

    Raise SystemExit if it does not start.
    """
    command = [sys.executable, "-m", "clinic_ai", "run", "--home", str(home.path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    daemon = psutil.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
    deadline = time.monotonic() + START_S
    while not (home.control_socket.exists() and answers(home.control_socket)):
        if daemon.poll() is not None or time.monotonic() > deadline:
            stopped(daemon)
            raise SystemExit("The daemon did not start; its log says why.")
        time.sleep(0.1)
    return daemon


def stopped(daemon: psutil.Popen) -> int:
    """Wait for a daemon that was told to end, and kill it if it does not; return its exit status."""
    try:
        return int(daemon.wait(timeout=STOP_S))
    except psutil.TimeoutExpired:
        daemon.kill()
        return int(daemon.wait())
