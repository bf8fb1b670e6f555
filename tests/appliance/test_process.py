"""``clinic-ai process`` as people run it: it ends, says why, and leaves no copy of a patient's image behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness import wait_until
from scans import write_ct_slice


def start(tmp_path: Path, *arguments: str) -> subprocess.Popen[bytes]:
    # A path longer than a socket may have: process makes no socket and must not mind.
    temporary = tmp_path / "tmp" / ("long" * 20)
    temporary.mkdir(parents=True)
    return subprocess.Popen(
        [sys.executable, "-m", "clinic_ai", "process", *arguments, "--output", str(tmp_path / "results"), "--json"],
        env={**os.environ, "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    path = tmp_path / "a.dcm"
    write_ct_slice(path, seed=1)
    return path


def test_it_ends_although_one_of_two_plugins_waits_for_a_person(tmp_path: Path, scan: Path) -> None:
    settings = tmp_path / "clinic.toml"
    settings.write_text('[[routing.rule]]\nname = "both"\nplugins = ["ghost", "echo"]\n')
    process = start(tmp_path, str(scan), "--settings", str(settings))
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    [study] = json.loads(out)["studies"]
    assert study["wait"]["code"] == "no_plugin"
    assert study["result"] is None
    assert not list((tmp_path / "tmp").glob("*/*"))


def test_sigterm_leaves_no_image_behind(tmp_path: Path, scan: Path) -> None:
    process = start(tmp_path, str(scan))
    wait_until(lambda: any((tmp_path / "tmp").glob("*/clinic-ai-*/home/state/lock")), "its home is made", 60)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert not list((tmp_path / "tmp").glob("*/*"))


def test_its_marks_stand_wherever_a_result_does(tmp_path: Path, scan: Path) -> None:
    out, _ = start(tmp_path, str(scan)).communicate(timeout=60)
    [study] = json.loads(out)["studies"]
    assert study["statements"]
    assert (study["closed_code"], study["closed_reason"]) == ("process", "all that was given had been read, 1 instance")
    assert study["marks"] == json.loads(Path(study["result"]).read_text())["guard"]["marks"] != []
