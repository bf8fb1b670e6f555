"""From two scans to an answered question: a real daemon with a plugin that answers, and the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import answering_engine
import pytest
from answering_engine import QUESTION, TEXT
from harness import Daemon, rows
from pypdf import PdfReader
from scans import write_ct_slice

from clinic_ai.home import Home
from clinic_ai.hookspecs import GROUP


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the plugin that answers, for the processes that the test starts."""
    folder = tmp_path / "installed"
    (folder / "answering-1.dist-info").mkdir(parents=True)
    (folder / "answering-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: answering\nVersion: 1\n")
    points = f"[{GROUP}]\nanswering = answering_engine\n"
    (folder / "answering-1.dist-info" / "entry_points.txt").write_text(points)
    support = Path(answering_engine.__file__).parent
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (folder, support))))


def clinic_ai(home: Home, *arguments: str, status: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "clinic_ai", "study", *arguments, "--home", str(home.path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == status, done.stderr + done.stdout
    return " ".join((done.stdout + done.stderr).split())


@pytest.mark.usefixtures("installed")
def test_two_images_are_asked_about_and_told_apart(home: Home, tmp_path: Path, start: Callable[[], Daemon]) -> None:
    daemon = start()
    uid = write_ct_slice(tmp_path / "1.dcm", seed=1)
    write_ct_slice(tmp_path / "2.dcm", seed=1, study=uid, instance=2)
    for number in (1, 2):
        (tmp_path / f"{number}.dcm").rename(home.inbox / f"{number}.dcm")
    daemon.wait_for("delivery.sent")
    [place] = home.outbox.glob("*/v1")
    study = json.loads((place / "result.json").read_text())["study"]["study_id"]

    # The standard question, asked of both when they came.
    answers = json.loads((place / "result.json").read_text())["answers"]
    assert [(a["image"], a["question"], a["confidence"]) for a in answers] == [(1, QUESTION, 0.93), (2, QUESTION, 0.93)]
    assert "It is about image 2 of 2." in answers[1]["text"]
    page = " ".join(" ".join(p.extract_text() for p in PdfReader(place / "report.pdf").pages).split())
    assert "Questions and answers" in page
    assert page.count(TEXT) == 2

    # A question of one's own.
    assert "has 2 images" in clinic_ai(home, "ask", study, QUESTION, status=1)
    said = clinic_ai(home, "ask", study, QUESTION, "--image", "2")
    assert TEXT in said
    assert "very high" in said
    assert "About image 2" in said
    assert TEXT not in clinic_ai(home, "ask", study, QUESTION, "--image", "1", "--audience", "patient")
    held = clinic_ai(home, "ask", study, "Is the picture grey?", "--image", "1", status=8)
    assert "no answer (held)" in held
    listed = json.loads(clinic_ai(home, "questions", study, "--json"))
    assert [(one["image"], one["audience"], one["outcome"]) for one in listed] == [
        (2, "clinician", "answered"),
        (1, "patient", "answered"),
        (1, "clinician", "held"),
    ]
    audited = rows(home, "SELECT details FROM audit WHERE action = 'study.question'")
    assert len(audited) == len(listed)
    assert not any("sharp" in row["details"] or "cec" in row["details"] for row in audited)
