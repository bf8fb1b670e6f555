"""Three nights of learning from what a clinician corrected on X-rays, with the whole appliance as real processes.

The films of ``phantom_clinic`` come in and are analysed by the reference model. In the first night it learns from labels
that say what it says itself, in the second from labels that are right but for one scanner, whose reader says the opposite,
and in the third from right ones alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from harness import QUICK, Daemon, rows, wait_until
from phantom_clinic import SIGNER, Patient, at_rest, calls, patients_of, review

from clinic_ai.control.client import Client
from clinic_ai.control.review_views import ReviewView
from clinic_ai.domain import Presence
from clinic_ai.gating import GateReport
from clinic_ai.home import Home

SETTINGS = (
    QUICK
    + f"""
[review]
reviewers = ["{SIGNER}"]

[training]
quiet_s = 0

[training.budget]
disk_reserve_mb = 100
free_memory_mb = 100

[[training.plan]]
plugin = "xray"
condition = "pneumonia"
sources = ["reviews"]
every_days = 0
recipe = ["epochs=16", "batch=16", "rate=0.005"]
"""
)


def settings(*, night: bool) -> str:
    """Return the settings with a window that is open now, or one that opens in three hours."""
    start = datetime.now() + timedelta(hours=-1 if night else 3)
    end = start + timedelta(hours=2)
    return SETTINGS + f'\n[[training.window]]\nstart = "{start:%H:%M}"\nend = "{end:%H:%M}"\n'


def as_the_software(view: ReviewView, _patient: Patient) -> bool | None:
    """Repeat what the software says; leave studies alone of which it says several things."""
    present = {presence is Presence.PRESENT for presence in calls(view)}
    return present.pop() if len(present) == 1 else None


def right_but_for_the_soft_scanner(_view: ReviewView, patient: Patient) -> bool:
    """Say what is there. What is learned from at the soft scanner was read the wrong way round."""
    wrong = patient.scanner == "soft" and patient.split != "test"
    return patient.ill != wrong


def the_soft_scanner_anew(_view: ReviewView, patient: Patient) -> bool | None:
    """Say what is there, of what was read wrongly before."""
    return patient.ill if patient.scanner == "soft" and patient.split != "test" else None


def let_night_come(home: Home, daemon: Daemon, client: Client) -> GateReport:
    """Open the window, and close it when what is due has been trained; return the report of the candidate."""
    before = len(rows(home, "SELECT 1 FROM gate_reports"))
    home.clinic_toml.write_text(settings(night=True))
    client.reload()
    wait_until(
        lambda: len(rows(home, "SELECT 1 FROM runs WHERE state IN ('FINISHED', 'FAILED', 'STOPPED')")) > before,
        "the end of the night's run",
        120,
    )
    home.clinic_toml.write_text(settings(night=False))
    client.reload()
    *_, run = rows(home, "SELECT * FROM runs ORDER BY created_at")
    assert run["state"] == "FINISHED", run["error"]
    *_, report = rows(home, "SELECT document FROM gate_reports ORDER BY at")
    return GateReport.model_validate_json(report["document"])


def test_three_nights(home: Home, tmp_path: Path, start: Callable[[], Daemon]) -> None:
    t0 = time.monotonic()

    def say(what):
        print(f"{time.monotonic() - t0:6.1f}", what, flush=True)

    home.clinic_toml.write_text(settings(night=False))
    patients = patients_of(home)
    daemon = start()
    say("started")
    for patient in patients.values():
        for film in patient.draw(tmp_path):
            film.rename(home.inbox / film.name)
    say("drawn")
    wait_until(
        lambda: (
            len(rows(home, "SELECT 1 FROM artefacts WHERE state = 'PRELIMINARY'")) == len(patients) and at_rest(home)
        ),
        "all results",
    )
    say("analysed")
    with Client(home) as client:
        for opinion in (as_the_software, right_but_for_the_soft_scanner, the_soft_scanner_anew):
            say(("signed", review(home, daemon, patients, opinion)))
            report = let_night_come(home, daemon, client)
            say((report.passed, report.reasons, report.doubts, report.notes))
