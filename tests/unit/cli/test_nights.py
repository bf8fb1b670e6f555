"""What people read of the night, its budgets and shadows: the figures they need, within 80 columns."""

from __future__ import annotations

import pytest

from clinic_ai.cli import nights, promotions
from clinic_ai.control.night_views import (
    ComparedView,
    EstimateView,
    ExpectedView,
    ExpenseView,
    LimitView,
    PeaksView,
    SpendingView,
    SpentView,
    TonightView,
)
from clinic_ai.domain import GuardAction, Presence
from clinic_ai.promoting import CanaryResult, Shadow, ShadowDocument, ShadowFinding

RUN = "R-20261129-CVH9XMDS"
SPENT = SpentView(seconds=4000.0, kwh=1.234567, pf_days=1.2e-9, money=0.31)


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")


def read(capsys: pytest.CaptureFixture[str]) -> str:
    """Return what was printed, in one line; every line of it fits."""
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80, out
    return " ".join(out.split())


def test_the_ledger_names_each_row_by_its_code(capsys: pytest.CaptureFixture[str]) -> None:
    peaks = PeaksView(hottest_c=81.6, watts=95.0, memory_mb=700, gpu_memory_mb=None, disk_mb=11, steps=60)
    none = PeaksView(hottest_c=None, watts=None, memory_mb=None, gpu_memory_mb=None, disk_mb=None, steps=None)
    paused = ExpenseView(
        run_id=RUN,
        plugin="xray",
        kind="pause",
        code="year_compute",
        sentence="Used up.",
        began_at=0.0,
        ended_at=1796076000.0,
        night="2026-11-28",
        year=2026,
        device="cpu",
        spent=SPENT,
        peaks=none,
    )
    rows = (paused, paused.model_copy(update={"kind": "work", "code": "", "peaks": peaks}))
    nights._tell_spending(
        SpendingView(
            night="2026-11-28",
            year=2026,
            tonight=SPENT,
            this_year=SPENT,
            limits=(LimitView(key="kwh_per_night", unit="kWh", spent=1.234567, limit=2.0),),
            compared=(
                ComparedView(
                    run_id=RUN,
                    plugin="xray",
                    state="PAUSED",
                    planned_seconds=3600.0,
                    planned_pf_days=0.0,
                    spent=SPENT,
                ),
            ),
            rows=rows,
            currency="EUR",
        )
    )
    out = read(capsys)
    assert f"{RUN} pause year_compute" in out
    assert f"{RUN} work 1 h 1.23 82" in out
    assert "kwh_per_night 1.235 2 kWh" in out


def test_what_tonight_brings_has_its_cost_or_why_that_is_not_known(capsys: pytest.CaptureFixture[str]) -> None:
    cost = EstimateView(
        steps=60, seconds=39.0, kwh=0.000696, pf_days=6.8e-10, money=0.0, disk_mb=11, memory_mb=720, learned_from=1
    )
    known = ExpectedView(name=RUN, plugin="xray", due=True, sentence="It waits.", remedy="", estimate=cost, untold="")
    untold = known.model_copy(update={"name": "xray gout", "estimate": None, "untold": "No image has a label."})
    nights._tell_tonight(
        TonightView(
            configured=True,
            opens_at=1796076000.0,
            closes_at=1796104800.0,
            expected=(known, untold),
            currency="EUR",
            may_sleep="",
        )
    )
    out = read(capsys)
    assert f"{RUN}: about 60 steps in 39 s, 0.000696 kWh" in out
    assert "(learned from 1 earlier run)." in out
    assert "xray gout: No image has a label." in out


def test_a_shadow_shows_what_moved_and_how_often(capsys: pytest.CaptureFixture[str]) -> None:
    moved = ShadowFinding(
        condition="pneumonia",
        sha256="a" * 64,
        before=Presence.PRESENT,
        after=Presence.ABSENT,
        probability_before=0.79,
        probability_after=0.29,
    )
    document = ShadowDocument(findings=(moved, moved), guard_before=GuardAction.ANNOTATE, guard_after=GuardAction.HOLD)
    shadow = Shadow(
        shadow_id="W-1",
        plugin="xray",
        name="chest",
        version="2",
        digest="b" * 64,
        study_id="S-20261129-7589SQXK",
        study_version=1,
        document=document,
        at=0.0,
    )
    promotions._tell_canary(CanaryResult(plugin="xray", name="chest", version="2", shadows=(shadow,)))
    out = read(capsys)
    assert "pneumonia present → absent (2 images)" in out
    assert "largest change of a probability 0.500" in out
    assert "guard annotate → hold" in out
