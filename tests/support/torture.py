"""Runs a script of the torture as a process of its own and returns what it tells in its last line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from privilege import ordinary

SUPPORT = Path(__file__).parent


def tell(script: str, *arguments: object, timeout_s: float = 170) -> dict[str, Any]:
    """Run ``python -m script arguments`` without root's privilege; fail the test if it tells nothing."""
    done = subprocess.run(
        ordinary([sys.executable, "-m", script, *map(str, arguments)]),
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
