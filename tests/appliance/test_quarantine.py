"""A file that contradicts its study, decided about on the command line of a running appliance."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pydicom
from harness import Daemon, rows, wait_until
from scans import write_ct_slice

from clinic_ai.home import Home


def clinic_ai(home: Home, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "clinic_ai", *words, "--home", str(home.path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_replacement_gives_a_new_result_that_says_so(home: Home, tmp_path: Path, start: Callable[[], Daemon]) -> None:
    daemon = start()
    write_ct_slice(tmp_path / "a.dcm", seed=1)
    shutil.copy(tmp_path / "a.dcm", home.inbox)
    finished = "SELECT study_id FROM studies WHERE state = 'DONE' AND version = ?"
    wait_until(lambda: bool(rows(home, finished, 1)), "the first result")
    scan = pydicom.dcmread(tmp_path / "a.dcm")
    scan.SeriesDescription = "corrected"
    scan.save_as(home.inbox / "b.dcm")
    quarantined = "SELECT file_id, study_id FROM files WHERE fate = 'QUARANTINED'"
    wait_until(lambda: bool(rows(home, quarantined)), "the quarantine")
    (row,) = rows(home, quarantined)
    shown = clinic_ai(home, "file", "show", str(row["file_id"]), "--json")
    assert shown.returncode == 1, shown.stderr
    comparison = json.loads(shown.stdout)["comparison"]
    assert (comparison["pixels"], comparison["differing"]) == ("same", ["SeriesDescription"])
    accepted = clinic_ai(home, "file", "accept", "--all-of", row["study_id"], "--replace")
    assert accepted.returncode == 0, accepted.stderr
    assert "STORED" in accepted.stdout
    wait_until(lambda: bool(rows(home, finished, 2)), "the second result")
    folders = [path.parent for path in home.outbox.rglob("result.json")]
    said = {
        document["study"]["version"]: document["study"]["remarks"]
        for document in (json.loads((folder / "result.json").read_text()) for folder in folders)
    }
    assert said[1] == []
    assert said[2] == ["1 object was replaced by another one with the same SOP Instance UID; a person decided so."]
    assert clinic_ai(home, "alert", "list").returncode == 0
    assert daemon.stop() == 0
