"""Disks that fill up under intake, receiver and a whole daemon: real file systems, in a namespace of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "children" / "small_disk.py"
SUPPORT = Path(__file__).parents[1] / "support"


@pytest.mark.parametrize("scenario", ["a_daemon", "from_another_disk", "disks_of_their_own"])
def test_what_comes_in_waits_for_room_and_goes_on_by_itself(scenario: str, tmp_path: Path) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("unshare is needed for disks of our own")
    done = subprocess.run(
        ["unshare", "-Urm", sys.executable, str(SCRIPT), scenario, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(SUPPORT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    if "unshare:" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mounts of our own are permitted here: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-2000:]
