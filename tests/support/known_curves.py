"""Loss curves of a known law, and runs of the store that have one, without any training."""

from __future__ import annotations

import json
import random

from sqlalchemy import insert

from clinic_ai.contract import TrainingProgress
from clinic_ai.domain import Spent
from clinic_ai.store import expenses, runs, tables
from clinic_ai.store.database import Database
from clinic_ai.store.runs import RunPlan, RunResult

STEPS_PER_EPOCH = 50


def losses(points: int, *, noise: float = 0.01, seed: int = 0, middle: float = 0.5) -> list[float]:
    """Return losses of epochs, 4 · t^(−0.5) + 0.3 over steps; ``middle`` 0.5: of the middle of each, 0: of its end."""
    drawn = random.Random(seed)
    steps = ((epoch - middle) * STEPS_PER_EPOCH for epoch in range(1, points + 1))
    return [4 * t**-0.5 + 0.3 + drawn.gauss(0, noise) for t in steps]


def add_run(
    database: Database,
    curve: list[float],
    *,
    finished: bool = True,
    spent: Spent | None = None,
    epochs: int | None = None,
) -> str:
    """Enter a run with that loss for each epoch, and what it cost; return its id. A running one has no result yet."""
    epochs = epochs or len(curve)
    steps = epochs * STEPS_PER_EPOCH
    with database.write() as connection:
        connection.execute(
            insert(tables.datasets).values(
                dataset_id="D-1", plugin="tiny", digest="0" * 64, document="{}", created_at=0.0
            )
        )
        run_id = runs.add_run(connection, "tiny", "D-1", {}, "tester")
        runs.begin(connection, run_id, "owner")
        plan = RunPlan(steps=steps, epochs=epochs, memory_mb=100, seconds=2.0 * steps, pf_days=1e-6 * steps)
        runs.save_plan(connection, run_id, plan)
        at = TrainingProgress(
            epoch=len(curve), epochs=epochs, step=len(curve) * STEPS_PER_EPOCH, steps=steps, loss=curve[-1]
        )
        runs.save_progress(connection, run_id, at)
        if spent is not None:
            row = {"run_id": run_id, "plugin": "tiny", "kind": "work", "began_at": 0.0, "ended_at": 1.0}
            expenses.add_expense(connection, expenses.Expense(**row, night="2026-11-21", year=2026, spent=spent))
        if finished:
            history = tuple({"epoch": float(i), "loss": loss} for i, loss in enumerate(curve, start=1))
            result = RunResult(state="finished", history=history)
            runs.end(connection, run_id, "finish", actor="tester", result=result)
    return run_id


def as_csv(curve: list[float]) -> str:
    """Return what a trainer writes aside: a line for each epoch."""
    lines = [f"{epoch},{json.dumps(loss)}" for epoch, loss in enumerate(curve, start=1)]
    return "\n".join(["epoch,loss", *lines, ""])
