"""Inboxes whose share is unmounted, replaced, late or does not answer: on real mounts, in a namespace of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "children" / "mounted_inbox.py"
SUPPORT = Path(__file__).parents[1] / "support"


@pytest.mark.parametrize(
    "scenario",
    [
        "unmounted",
        "restarted",
        "unmounted_between",
        "mounted_over",
        "mounted_late",
        "named_in_fstab",
        "another_path",
        "hung",
    ],
)
def test_nothing_is_taken_from_a_wrong_folder_and_nothing_is_forgotten(scenario: str, tmp_path: Path) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("unshare is needed for mounts of our own")
    done = subprocess.run(
        ["unshare", "-Urm", sys.executable, str(SCRIPT), scenario, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(SUPPORT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if "unshare:" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mounts of our own are permitted here: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-2000:]
