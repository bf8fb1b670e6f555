"""Nights of learning from what a clinician signed of X-rays, with the whole appliance as real processes.

The films of a clinic of phantoms come in and are analysed by the reference model. Of three nights, it learns in the
first from labels that say what it said itself, in the second from labels that are right but for one scanner, whose
films were read the wrong way round, and in the third from right ones; in a night alone, from right ones. What is
promoted then is measured on films of further patients.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from harness import QUICK, ROOMY, Daemon, rows, wait_until
from phantom_clinic import (
    FEW,
    PATIENTS,
    SIGNER,
    Clinician,
    Patient,
    calls,
    further_patients,
    improvement,
    patients_of,
)

from clinic_ai.control.promotion_client import PromotionClient
from clinic_ai.control.promotion_views import PromoteOrder
from clinic_ai.control.review_views import ReviewView
from clinic_ai.control.views import ModelRow
from clinic_ai.domain import Presence
from clinic_ai.errors import Conflict, NotAllowed
from clinic_ai.gating import GateReport, GroupCompared
from clinic_ai.home import Home
from clinic_ai.store import audit
from clinic_ai.store.database import Database
from clinic_ai_xray.phantom_clinic import FILMS, Scanner

SETTINGS = f"""
{QUICK}
[review]
reviewers = ["{SIGNER}"]

[training]
quiet_s = 0

{ROOMY}
[[training.plan]]
plugin = "xray"
condition = "pneumonia"
sources = ["reviews"]
every_days = 0
recipe = ["epochs=16", "batch=16", "rate=0.005"]

[[training.window]]
"""
NIGHT_S = 600.0
"""A run is nice to everybody, so it takes long beside other work."""


def settings(*, night: bool) -> str:
    """Return the settings with a window that is open now, or one that opens in three hours."""
    start = datetime.now() + timedelta(hours=-1 if night else 3)
    return f'{SETTINGS}start = "{start:%H:%M}"\nend = "{start + timedelta(hours=2):%H:%M}"\n'


def as_the_software(view: ReviewView, _patient: Patient) -> bool | None:
    """Repeat what the software says; leave studies alone of which it says several things."""
    present = {presence is Presence.PRESENT for presence in calls(view)}
    return present.pop() if len(present) == 1 else None


def right_but_for_the_soft_scanner(_view: ReviewView, patient: Patient) -> bool:
    """Say what is there, but the opposite of films of the soft scanner that are learned from."""
    return patient.phantom.ill is not learned_from_soft(patient)


def right_of_the_soft_scanner(_view: ReviewView, patient: Patient) -> bool | None:
    """Say what is there of the films that were read the wrong way round."""
    return patient.phantom.ill if learned_from_soft(patient) else None


def learned_from_soft(patient: Patient) -> bool:
    return patient.phantom.scanner == "soft" and patient.split != "test"


def let_night_come(home: Home, client: PromotionClient) -> GateReport:
    """Open the window, and close it when what is due has been trained; return the report of the candidate."""
    before = len(reports(home))
    home.clinic_toml.write_text(settings(night=True))
    client.reload()
    wait_until(lambda: len(runs_over(home)) > before, "the end of the night's run", NIGHT_S)
    home.clinic_toml.write_text(settings(night=False))
    client.reload()
    run = runs_over(home)[-1]
    assert (run["state"], run["origin"], run["at_once"]) == ("FINISHED", "night", 0), run["error"]
    return reports(home)[-1]


def runs_over(home: Home) -> list[dict[str, object]]:
    query = "SELECT * FROM runs WHERE state IN ('FINISHED', 'FAILED', 'STOPPED') ORDER BY created_at"
    return [dict(row) for row in rows(home, query)]


def reports(home: Home) -> list[GateReport]:
    found = rows(home, "SELECT document FROM gate_reports ORDER BY at")
    return [GateReport.model_validate_json(row["document"]) for row in found]


def by_scanner(report: GateReport) -> dict[str, GroupCompared]:
    """Return the figures of the two scanners. The report names them by pseudonyms; the sharp one has more patients."""
    assert report.comparison is not None
    stations = [group for group in report.comparison.groups if group.trait == "station"]
    return dict(zip(("soft", "sharp"), sorted(stations, key=lambda group: group.patients), strict=True))


@pytest.mark.timeout(2 * NIGHT_S)
def test_a_night_that_helps(home: Home, tmp_path: Path, start: Callable[[], Daemon]) -> None:
    patients, daemon = open_clinic(home, tmp_path, start, FEW)
    with PromotionClient(home) as client:
        incumbent = in_use(client)
        wait_for_results(home, incumbent, patients)
        assert Clinician(home, patients).review(lambda _view, patient: patient.phantom.ill) == len(patients)
        promoted = promoted_by_name(home, client, let_night_come(home, client), incumbent)
    assert_of_use(home, promoted, incumbent, tmp_path)
    assert_whole(home, daemon, runs=1)


@pytest.mark.torture
@pytest.mark.timeout(3 * NIGHT_S)
def test_three_nights(home: Home, tmp_path: Path, start: Callable[[], Daemon]) -> None:
    patients, daemon = open_clinic(home, tmp_path, start, PATIENTS)
    clinician = Clinician(home, patients)
    with PromotionClient(home) as client:
        incumbent = in_use(client)
        wait_for_results(home, incumbent, patients)

        # What the software said itself teaches it nothing, whoever signs it.
        assert clinician.review(as_the_software) > len(patients) // 2
        echoed = let_night_come(home, client)
        assert not echoed.passed
        assert echoed.incumbent is not None
        assert echoed.incumbent.digest == incumbent.digest
        overall = echoed.comparison.overall
        assert overall.incumbent == 1.0
        assert overall.difference <= 0
        [reason] = [reason for reason in echoed.reasons if "not proven" in reason]
        assert f"{overall.candidate:.3f}" in reason
        assert f"{overall.examples} test examples of {overall.patients} patients" in reason
        refused(client, echoed)

        # Better in all, and of no use to the patients of one scanner.
        clinician.review(right_but_for_the_soft_scanner)
        poisoned = let_night_come(home, client)
        assert not poisoned.passed
        assert poisoned.comparison.overall.interval[0] > 0
        scanners = by_scanner(poisoned)
        assert scanners["sharp"].difference > 0.5
        assert scanners["soft"].difference < -0.2
        assert scanners["soft"].interval[1] < 0
        assert any(scanners["soft"].group in reason for reason in poisoned.reasons)
        assert not any(scanners["sharp"].group in reason for reason in poisoned.reasons)
        refused(client, poisoned)

        # Right labels.
        assert clinician.review(right_of_the_soft_scanner) == sum(map(learned_from_soft, patients.values()))
        promoted = promoted_by_name(home, client, let_night_come(home, client), incumbent)
    assert_of_use(home, promoted, incumbent, tmp_path)
    assert_whole(home, daemon, runs=3)


def open_clinic(
    home: Home, folder: Path, start: Callable[[], Daemon], counts: Mapping[tuple[Scanner, str], int]
) -> tuple[dict[str, Patient], Daemon]:
    """Let patients come in by day; return them with the daemon."""
    home.clinic_toml.write_text(settings(night=False))
    patients = patients_of(home, counts)
    daemon = start()
    for patient in patients.values():
        for film in patient.draw(folder):
            film.rename(home.inbox / film.name)
    return patients, daemon


def wait_for_results(home: Home, model: ModelRow, patients: Mapping[str, Patient]) -> None:
    done = "SELECT 1 FROM studies WHERE state = 'DONE'"
    wait_until(lambda: len(rows(home, done)) == len(patients), "all studies", NIGHT_S)
    wait_until(lambda: len(results_of(home, model)) == len(patients), "all results", NIGHT_S)


def promoted_by_name(home: Home, client: PromotionClient, helped: GateReport, incumbent: ModelRow) -> ModelRow:
    """Promote a candidate that passed, which needs the name of somebody who may; return what is in use then."""
    assert helped.passed, helped.reasons
    assert helped.comparison is not None
    assert helped.comparison.overall.interval[0] > 0
    assert in_use(client) == incumbent  # not by itself
    promote = PromoteOrder(plugin="xray", name=helped.name, version=helped.version)
    with pytest.raises(Conflict, match="Nobody has approved"):
        client.promote_model(promote)
    with pytest.raises(NotAllowed):
        client.promote_model(promote.model_copy(update={"reviewer": "Dr. Nobody"}))
    assert in_use(client) == incumbent
    client.promote_model(promote.model_copy(update={"reviewer": SIGNER}))
    promoted = in_use(client)
    assert promoted.digest == helped.digest
    [approval] = rows(home, "SELECT * FROM approvals")
    assert (approval["name"], approval["report_id"]) == (SIGNER, helped.report_id)
    return promoted


def assert_of_use(home: Home, promoted: ModelRow, incumbent: ModelRow, folder: Path) -> None:
    """Measured without the appliance on films of people whom nobody has seen, it is better; and it judges the next."""
    low, _ = improvement(directory_of(home, promoted), directory_of(home, incumbent), folder)
    assert low > 0
    new = further_patients(1)[0]
    for film in new.draw(folder, "P-NEW"):
        film.rename(home.inbox / film.name)
    wait_until(lambda: results_of(home, promoted) != [], "the result of a new patient", NIGHT_S)
    [result] = results_of(home, promoted)
    assert 0 < len(result["findings"]) <= FILMS


def assert_whole(home: Home, daemon: Daemon, *, runs: int) -> None:
    """The daemon ends well, the ledger holds the runs, and the audit is unbroken."""
    assert daemon.stop() == 0
    assert_ledger(home, runs)
    database = Database(home.database)
    with database.read() as connection:
        assert audit.first_break(connection) is None
    database.close()


def results_of(home: Home, model: ModelRow) -> list[dict[str, Any]]:
    """Return what a model said of the studies it judged, as it lies in the outbox."""
    found = [json.loads(path.read_text()) for path in home.outbox.glob("*/v1/result.json")]
    return [result for result in found if [ref["digest"] for ref in result["models"]] == [model.digest]]


def assert_ledger(home: Home, runs: int) -> None:
    """Each of the runs is in the ledger with what it cost and how it ended."""
    query = "SELECT run_id, sum(seconds) AS seconds, sum(kwh) AS kwh, max(kind = 'finish') AS finished FROM expenses"
    spent = rows(home, f"{query} GROUP BY run_id")
    assert len(spent) == runs
    assert all(row["seconds"] > 0 and row["kwh"] > 0 and row["finished"] for row in spent)


def in_use(client: PromotionClient) -> ModelRow:
    [row] = [row for row in client.models() if (row.plugin, row.slot, row.state) == ("xray", "main", "ACTIVE")]
    return row


def directory_of(home: Home, model: ModelRow) -> Path:
    return home.models / model.plugin / model.name / model.version


def refused(client: PromotionClient, report: GateReport) -> None:
    """Nobody can promote a candidate that did not pass, in whose name ever."""
    before = in_use(client)
    with pytest.raises(Conflict):
        client.promote_model(PromoteOrder(plugin="xray", name=report.name, version=report.version, reviewer=SIGNER))
    assert in_use(client) == before


@pytest.mark.torture
@pytest.mark.timeout(7200)
def test_nights_end_as_they_should_in_many_clinics() -> None:
    benchmark = Path(__file__).parents[2] / "benchmarks" / "three_nights.py"
    done = subprocess.run(
        [sys.executable, str(benchmark), "--clinics", "40"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
