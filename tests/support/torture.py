"""Runs a script of the torture as a process of its own and returns what it tells in its last line."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from privilege import ordinary

SUPPORT = Path(__file__).parent


def tell(script: str, *arguments: object, timeout_s: float = 170) -> dict[str, Any]:
    """Run ``python -m script arguments`` without root's privilege; fail the test if it tells nothing."""
    return tell_under(ordinary([]), script, *arguments, timeout_s=timeout_s)


def tell_under(prefix: Sequence[str], script: str, *arguments: object, timeout_s: float = 170) -> dict[str, Any]:
    """Run ``python -m script arguments`` by the command ``prefix``; fail the test if it tells nothing."""
    done = subprocess.run(
        [*prefix, sys.executable, "-m", script, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(SUPPORT), "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if answer.get("broken"):
        sys.stderr.write(done.stderr[-8000:])
    return answer


def own_mounts() -> list[str]:
    """Return the command that gives a process mounts of its own; skip the test where that is not permitted."""
    command = ["unshare", "--user", "--map-root-user", "--mount"]
    _skip_without((*command, "mount", "-t", "tmpfs", "probe", "/mnt"), "mounts of our own")
    return command


def strace(*arguments: str) -> list[str]:
    """Return the command that has a process traced; skip the test where that is not permitted."""
    command = ["strace", "--follow-forks", "--quiet=all", *arguments]
    _skip_without(("strace", "-o", os.devnull, "true"), "system calls that fail by strace")
    return command


@functools.cache
def _refusal(command: tuple[str, ...]) -> str:
    if shutil.which(command[0]) is None:
        return f"{command[0]} is not installed"
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return done.stderr.strip() or f"it ends with {done.returncode}" if done.returncode else ""


def _skip_without(command: tuple[str, ...], what: str) -> None:
    if refusal := _refusal(command):
        pytest.skip(f"{what} cannot be had here: {refusal}")
