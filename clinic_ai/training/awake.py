"""Keeps the machine from going to sleep while a run lives, where systemd is there to be asked."""

from __future__ import annotations

import subprocess

import structlog

log = structlog.get_logger()

COMMAND = (
    "systemd-inhibit",
    "--what=sleep:idle",
    "--who=clinic-ai",
    "--why=A model is being trained.",
    "--mode=block",
    "cat",
)
"""``cat`` ends when its standard input does, and the lock with it: so it ends with us, whatever becomes of us."""


class Awake:
    """A lock against sleeping. One thread calls ``hold`` and ``release``; ``note`` may be read from any."""

    def __init__(self, command: tuple[str, ...] = COMMAND) -> None:
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self.note = ""
        """Why the machine may go to sleep during a run; empty if it will not, as far as is known."""

    def hold(self) -> None:
        """See that the lock is held. Where it cannot be had, that is noted once and nothing fails."""
        if self._process is not None and self._process.poll() is not None:
            self._end()
            self._say("systemd does not let it be kept awake.")
        if self._process is not None or self.note:
            return
        try:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        except OSError:
            self._say("there is no systemd-inhibit here.")

    def release(self) -> None:
        """Let the machine sleep again; a later ``hold`` tries anew what was refused."""
        self.note = ""
        self._end()

    def _end(self) -> None:
        if self._process is None:
            return
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _say(self, why: str) -> None:
        self.note = f"The machine may go to sleep during a run: {why}"
        log.info("training.may_sleep", sentence=self.note)
