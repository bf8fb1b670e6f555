"""Made data for the screens of training and models: a run at work, a budget, a candidate that was refused."""

from __future__ import annotations

import math
import random
from typing import Any

from screens import NOW, Exhibit, made_status

from clinic_ai.contract import ModelFile
from clinic_ai.control.forecast_views import ForecastView
from clinic_ai.control.night_views import EstimateView, ExpectedView, ExpenseView, SpendingView, SpentView, TonightView
from clinic_ai.control.progress_views import HistoryView, SeriesView
from clinic_ai.control.queue_views import QueuePage
from clinic_ai.control.shelf_views import ShelfModel, ShelfView, SlotView
from clinic_ai.control.views import Role, RunRow
from clinic_ai.domain import ModelRef, ModelState, Spent, ValidationFigures
from clinic_ai.forecasting import Ahead, Forecast, HoldOut, LawFit, NoiseView, Purchase, Rates, Span, WithoutFloor
from clinic_ai.gating import Compared, Comparison, GateReport, GateRules, GroupCompared, GuardOutcome, NewFailure
from clinic_ai.promoting import Activation, Origin, PromotionRecord

HOUR = 3600.0
AT_WORK, LATER, DONE, LOST = (
    "R-20261121-7F3K9QXB",
    "R-20261121-9M2C4DPT",
    "R-20261119-4H8W6KZN",
    "R-20261112-2B7N5VRG",
)
CANDIDATE = f"R-{DONE[2:]}"
_SHA = "a" * 64


def running(**changes: Any) -> RunRow:
    """Return a run at epoch 7 of 20."""
    told: dict[str, Any] = {
        "run_id": AT_WORK,
        "plugin": "xray",
        "state": "RUNNING",
        "dataset_id": "D-20261121-3XK7M2QP",
        "recipe": {"condition": "pneumonia", "tier": "intensive", "epochs": 20},
        "progress": {
            "epoch": 7,
            "epochs": 20,
            "step": 2604,
            "steps": 7440,
            "loss": 0.3127,
            "metric": 0.871,
            "metric_name": "validation AUROC",
            "eta_s": 7080.0,
            "message": "",
            "pf_days": 0.0213,
            "memory_mb": 3412,
            "temperature_c": 71.0,
            "power_w": 142.0,
        },
        "created_at": NOW - 2 * HOUR,
        "started_at": NOW - 1.1 * HOUR,
    }
    return RunRow.model_validate(told | changes)


def waiting() -> RunRow:
    """Return a run that waits for the window."""
    return RunRow(
        run_id=LATER,
        plugin="ultrasound",
        state="PLANNED",
        dataset_id="D-20261121-8RT5W2NC",
        recipe={"category": "femur"},
        error="No training window is open; the next opens on Sat 2026-11-21 22:00 (training.window). It goes on by "
        "itself then; `clinic-ai train resume RUN --now` does not wait for a window.",
        pause_code="window",
        goes_on=True,
        created_at=NOW - 0.5 * HOUR,
    )


def finished() -> RunRow:
    """Return a run that made a candidate."""
    made = ModelRef(plugin="xray", slot="pneumonia_fast", name="chest-fast", version=CANDIDATE, digest=_SHA)
    return RunRow(
        run_id=DONE,
        plugin="xray",
        state="FINISHED",
        dataset_id="D-20261119-1QW3E5RT",
        recipe={"condition": "pneumonia", "tier": "fast"},
        result={
            "state": "finished",
            "scores": {"split": "test", "examples": 412, "values": {"auroc": 0.894}, "intervals": {}},
            "candidate": made.model_dump(),
            "notes": ["Left out because the pixels cannot be read: 3 of 2,871 images."],
        },
        created_at=NOW - 50 * HOUR,
        started_at=NOW - 38 * HOUR,
        finished_at=NOW - 35.5 * HOUR,
        origin="night",
        plan_key="xray pneumonia",
    )


def failed() -> RunRow:
    """Return a run that failed."""
    return RunRow(
        run_id=LOST,
        plugin="xray",
        state="FAILED",
        dataset_id="D-20261112-6YU8I1OP",
        error="The loss is not finite in epoch 3, step 118. Try a smaller rate, or look at the images of that step.",
        created_at=NOW - 9 * 24 * HOUR,
        started_at=NOW - 9 * 24 * HOUR,
        finished_at=NOW - 9 * 24 * HOUR + 900,
    )


def outlook(**changes: Any) -> TonightView:
    """Return a night whose window opens at 22:00, with an estimate for the run that waits."""
    cost = EstimateView(
        steps=4200,
        seconds=9480.0,
        kwh=0.42,
        pf_days=0.061,
        money=0.13,
        disk_mb=640,
        memory_mb=5200,
        learned_from=3,
    )
    told: dict[str, Any] = {
        "configured": True,
        "opens_at": NOW + 10 * HOUR,
        "closes_at": NOW + 18 * HOUR,
        "expected": (
            _expected(AT_WORK, "xray", due=True, sentence="It is at work."),
            _expected(LATER, "ultrasound", due=True, sentence="It waits for its turn.", estimate=cost),
            _expected(
                "xray effusion",
                "xray",
                due=True,
                sentence="143 labelled images are new since its run R-20261030-5T6Y7U8I, which is FINISHED; a run "
                "needs 100.",
                untold="What it will cost is not known before its trainer is asked.",
            ),
            _expected(
                "xray pneumonia",
                "xray",
                due=False,
                sentence="31 labelled images are new; a run needs 100 (min_new).",
                remedy="Sign more reviews, or lower min_new in clinic.toml.",
            ),
        ),
        "currency": "EUR",
        "may_sleep": "",
    }
    return TonightView.model_validate(told | changes)


def _expected(name: str, plugin: str, **said: Any) -> ExpectedView:
    return ExpectedView.model_validate(
        {"name": name, "plugin": plugin, "remedy": "", "estimate": None, "untold": "", **said}
    )


def spending() -> SpendingView:
    """Return budgets: 62 % of the energy of the night, 91 % of the compute of the year, no limit of money."""
    worked = _expense("work", NOW - 1.1 * HOUR, NOW, spent=_spent(3960, 0.156))
    refused = _expense("refuse", NOW - 2 * HOUR, NOW - 2 * HOUR, sentence="The processor has 88 °C; 85 is the limit.")
    return SpendingView.model_validate(
        {
            "night": "2026-11-21",
            "year": 2026,
            "tonight": _spent(3960, 1.24),
            "this_year": _spent(911_000, 38.2),
            "limits": (
                {"key": "kwh_per_night", "unit": "kWh", "spent": 1.24, "limit": 2.0},
                {"key": "kwh_per_year", "unit": "kWh", "spent": 38.2, "limit": 250.0},
                {"key": "pf_days_per_year", "unit": "PF-days", "spent": 4.55, "limit": 5.0},
                {"key": "money_per_year", "unit": "EUR", "spent": 11.84, "limit": 0.0},
            ),
            "compared": (
                {
                    "run_id": AT_WORK,
                    "plugin": "xray",
                    "state": "RUNNING",
                    "planned_seconds": 11400.0,
                    "planned_pf_days": 0.061,
                    "spent": _spent(3960, 0.156),
                },
            ),
            "rows": (worked, refused),
            "currency": "EUR",
        }
    )


def _spent(seconds: float, kwh: float) -> SpentView:
    return SpentView(seconds=seconds, kwh=kwh, pf_days=kwh * 0.14, money=kwh * 0.31)


def _expense(kind: str, began_at: float, ended_at: float, *, sentence: str = "", **said: Any) -> ExpenseView:
    there = {"hottest_c": 74.0, "watts": 142.0, "memory_mb": 3412, "gpu_memory_mb": None, "disk_mb": 640, "steps": 2604}
    measured = kind == "work"
    return ExpenseView.model_validate(
        {
            "run_id": AT_WORK,
            "plugin": "xray",
            "kind": kind,
            "code": "" if measured else "heat",
            "sentence": sentence,
            "began_at": began_at,
            "ended_at": ended_at,
            "night": "2026-11-21",
            "year": 2026,
            "device": "cpu",
            "spent": _spent(0, 0),
            "peaks": there if measured else dict.fromkeys(there),
            **said,
        }
    )


def history(run_id: str = AT_WORK) -> HistoryView:
    """Return 300 losses of steps and the figures of seven epochs; none of a run that did not begin."""
    if run_id == LATER:
        return HistoryView(run_id=run_id, epochs=0, series=())
    drawn = random.Random(7)
    steps = [
        (number * 7 / 300, 0.25 + 0.45 * math.exp(-number / 90) + drawn.gauss(0, 0.02)) for number in range(1, 301)
    ]
    aurocs = [(float(epoch), 0.88 - 0.2 * math.exp(-epoch / 2.2)) for epoch in range(1, 8)]
    losses = [(float(epoch), 0.26 + 0.4 * math.exp(-epoch / 2)) for epoch in range(1, 8)]
    return HistoryView(
        run_id=run_id,
        epochs=20,
        series=(
            SeriesView(name="step loss", points=tuple(steps)),
            SeriesView(name="loss", points=tuple(losses)),
            SeriesView(name="validation_auroc", points=tuple(aurocs)),
        ),
    )


def forecast(*, identifiable: bool) -> ForecastView:
    """Return what a run would bring if it went on, told or not told by its curve."""
    whole = Span(value=0.31, low=0.29, high=0.33)
    fit = LawFit(dropped=0, points=7, a=whole, b=whole, c=whole)
    told = Forecast(
        name=f"run {AT_WORK}",
        unit="step",
        last_step=2604,
        fit=fit,
        windows=(),
        hold_out=HoldOut(until=2000, points=5, held_out=2, predicted=whole, observed=0.32),
        noise=NoiseView(
            deviation=0.02, trend=0.0, autocorrelation=0.1, effective_points=6, block_length=1, replicates=400
        ),
        identifiable=identifiable,
        reasons=() if identifiable else ("The curve has 7 points; the law has three parameters.",),
        now=Ahead(step=2604, loss=whole),
        twice=Ahead(step=5208, loss=Span(value=0.28 if identifiable else None, low=0.25, high=0.31)),
        halving=Span(value=9000.0 if identifiable else None, low=6000.0, high=None),
        target=None,
        target_at=None,
        target_note="",
        without_floor=WithoutFloor(a=1.0, b=0.5, excess=0.1, enough=False),
        points=tuple((372.0 * epoch, 0.3 + 0.3 / epoch) for epoch in range(1, 8)),
        law=(),
        notes=(),
    )
    again = Span(value=2604, low=2604, high=2604)
    bought = Purchase(what="twice the data", loss=told.twice.loss, steps=again, seconds=again, note="If none repeats.")
    rates = Rates(seconds=1.0, kwh=0.0001, money=0.00003, currency="EUR", basis="By the ledger of this run.")
    return ForecastView(forecast=told, rates=rates, purchases=(bought,))


# ---------------------------------------------------------------- models


def refused_report() -> GateReport:
    """Return the examination of a candidate that is better on the whole and worse for women."""
    women = GroupCompared(
        trait="sex",
        group="female",
        examples=196,
        patients=171,
        candidate=0.841,
        candidate_interval=(0.78, 0.893),
        incumbent=0.902,
        incumbent_interval=(0.851, 0.943),
        difference=-0.061,
        interval=(-0.104, -0.018),
    )
    men = women.model_copy(
        update={
            "group": "male",
            "examples": 216,
            "patients": 190,
            "candidate": 0.921,
            "candidate_interval": (0.88, 0.955),
            "incumbent": 0.867,
            "incumbent_interval": (0.81, 0.913),
            "difference": 0.054,
            "interval": (0.015, 0.092),
        }
    )
    old = GroupCompared(trait="age", group="0-17", examples=6, patients=5, why_not="too few")
    overall = Compared(
        examples=412,
        patients=361,
        candidate=0.894,
        candidate_interval=(0.861, 0.923),
        incumbent=0.881,
        incumbent_interval=(0.846, 0.912),
        difference=0.013,
        interval=(0.002, 0.025),
    )
    return GateReport(
        report_id="G-20261120-5K3M8WQX",
        plugin="xray",
        slot="pneumonia_fast",
        name="chest-fast",
        version=CANDIDATE,
        digest=_SHA,
        incumbent=ModelRef(plugin="xray", slot="pneumonia_fast", name="chest-fast", version="1.0", digest="b" * 64),
        dataset_id="D-20261119-1QW3E5RT",
        patients={"train": 1710, "validation": 366, "test": 361},
        rules=GateRules(improvement="proven", largest_loss=0.0, subgroup_loss=0.03),
        comparison=Comparison(
            metric="auroc", figure="AUROC of pneumonia", overall=overall, groups=(women, men, old), judged_groups=2
        ),
        guard=GuardOutcome(
            examples=412,
            candidate_kept_back=3,
            incumbent_kept_back=2,
            new=(NewFailure(sha256="c" * 64, rule="laterality.mismatch", reason="It says left of a right lung."),),
            policy_hash="d" * 64,
            policy_name="default",
        ),
        passed=False,
        reasons=(
            "Among the 196 test examples of sex female (171 patients) it loses 0.061, more than the 0.03 of "
            "training.gate.subgroup_loss: 0.841 instead of 0.902, difference -0.104 to -0.018.",
        ),
        notes=("Too small to tell: age 0-17.",),
        at=NOW - 35.5 * HOUR,
    )


def record(plugin: str = "xray", name: str = "chest-fast", version: str = CANDIDATE) -> PromotionRecord:
    """Return what stands behind a model: of the candidate its refusal, of others a promotion."""
    candidate = version == CANDIDATE
    digest = _SHA if candidate else "b" * 64
    ref = ModelRef(plugin=plugin, slot="pneumonia_fast", name=name, version=version, digest=digest)
    return PromotionRecord(
        model=ref,
        state=ModelState.CANDIDATE if candidate else ModelState.ACTIVE,
        files=(ModelFile(name="model.onnx", sha256="e" * 64, size_bytes=28_311_552),),
        licence="Apache-2.0",
        source=f"run {DONE}" if candidate else "built by plugins/xray/reference/build.py",
        intended_use="Chest X-rays of adults, second reader",
        quantisation="none",
        in_use=(ref,),
        origin=Origin(run_id=DONE, dataset_id="D-20261119-1QW3E5RT", recipe={"condition": "pneumonia"})
        if candidate
        else None,
        report=refused_report() if candidate else None,
        activations=() if candidate else (Activation(kind="promote", at=NOW - 90 * HOUR, by="ada"),),
        spent=Spent(seconds=9200, kwh=0.38, pf_days=0.055, money=0.12) if candidate else Spent(),
        rollback="clinic-ai model rollback xray --slot pneumonia_fast",
        written_at=NOW,
    )


def _figures(auroc: float) -> ValidationFigures:
    return ValidationFigures(
        dataset="held-out patients of D-20261119",
        positives=118,
        negatives=294,
        auroc=auroc,
        auroc_low=auroc - 0.035,
        auroc_high=auroc + 0.028,
        sensitivity=0.86,
        sensitivity_low=0.79,
        sensitivity_high=0.92,
        specificity=0.81,
        specificity_low=0.76,
        specificity_high=0.85,
    )


def model(name: str, version: str, state: str, **said: Any) -> ShelfModel:
    """Return a model of the shelf."""
    told: dict[str, Any] = {
        "plugin": "xray",
        "slot": "pneumonia_fast",
        "name": name,
        "version": version,
        "digest": "b" * 64,
        "state": state,
        "reference": False,
        "licence": "Apache-2.0",
        "clinical_use": True,
        "commercial_use": True,
        "conditions": ("pneumonia",),
        "tier": "fast",
        "imported_at": NOW - 200 * HOUR,
        "imported_by": "ada",
        "source": "made by the vendor",
        "intended_use": "Chest X-rays of adults, second reader",
        "size_bytes": 28_311_552,
        "validation": {"pneumonia": _figures(0.881)},
    }
    return ShelfModel.model_validate(told | said)


def shelf() -> ShelfView:
    """Return a shelf: models in use of two plugins, a candidate that was refused, one that was approved."""
    return ShelfView(
        models=(
            model(
                "chest-fast",
                CANDIDATE,
                "CANDIDATE",
                digest=_SHA,
                examined="refused",
                source=f"run {DONE}",
                imported_by=f"run {DONE}",
                imported_at=NOW - 35.5 * HOUR,
                validation={"pneumonia": _figures(0.894)},
            ),
            model("chest-fast", "1.0", "ACTIVE", examined="passed", approved_by="Dr. Ada Stern"),
            model("chest-fast", "0.9", "RETIRED", imported_at=NOW - 2000 * HOUR),
            model(
                "chest-large",
                "2.1",
                "ACTIVE",
                slot="pneumonia_intensive",
                tier="intensive",
                commercial_use=False,
                licence="CC-BY-NC-4.0",
            ),
            model(
                "effusion-reference",
                "1.0",
                "ACTIVE",
                slot="effusion_fast",
                conditions=("effusion",),
                reference=True,
                clinical_use=False,
                commercial_use=False,
                validation={},
            ),
            model(
                "femur",
                "R-20261118-6P4T9XBD",
                "CANDIDATE",
                plugin="ultrasound",
                slot="femur",
                conditions=(),
                tier="",
                base="moondream-reference 1.0",
                examined="passed",
                approved_by="Dr. Ada Stern",
                validation={},
            ),
        ),
        slots=(
            SlotView(plugin="ultrasound", slot="femur", active=None, before=None),
            SlotView(plugin="xray", slot="effusion_fast", active="effusion-reference 1.0", before=None),
            SlotView(plugin="xray", slot="pneumonia_fast", active="chest-fast 1.0", before="chest-fast 0.9"),
            SlotView(plugin="xray", slot="pneumonia_intensive", active="chest-large 2.1", before=None),
        ),
    )


def night(*runs: RunRow, role: Role = Role.ADMINISTRATOR, may_change: bool = True, **answers: Any) -> Exhibit:
    """Return a client that knows these runs, by default a busy night."""
    there = runs or (running(), waiting(), finished(), failed())
    given: dict[str, Any] = {
        "runs": there,
        "outlook": outlook(),
        "spending": spending(),
        "run_history": history,
        "model_record": record,
        "shelf": shelf(),
        "queue": QueuePage(studies=(), offset=0, total=0, place=None),
    }
    living = tuple(run for run in there if run.state == "RUNNING" or run.goes_on)
    return Exhibit(given | answers, status=made_status(role=role, may_change=may_change, runs=living))
