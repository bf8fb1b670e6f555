"""The ledger of training: what each run cost, whenever it worked, paused, failed, finished or was refused."""

from __future__ import annotations

import json
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Row, func, insert, select, update

from clinic_ai.domain import Key, RunState, Spent, Word
from clinic_ai.store.runs import RunPlan
from clinic_ai.store.tables import expenses, runs

Kind = Literal["work", "pause", "fail", "finish", "refuse"]


class Peaks(Word):
    """The most of a stretch of work: degrees Celsius, watts, MiB; ``steps`` it made. None: nobody measured it."""

    hottest_c: float | None = None
    watts: float | None = None
    memory_mb: int | None = None
    gpu_memory_mb: int | None = None
    disk_mb: int | None = None
    steps: int | None = None


class Expense(Word):
    """One row of the ledger: what was spent from ``began_at`` to ``ended_at`` (UTC seconds).

    ``code`` is the domain.PauseCode of a pause or refusal, ``sentence`` says the same in words. ``night`` is the ISO
    date on which the night began, ``device`` where the run computed.
    """

    run_id: str
    plugin: Key
    kind: Kind
    code: str = ""
    sentence: str = ""
    began_at: float
    ended_at: float
    night: str
    year: int
    spent: Spent = Spent()
    peaks: Peaks = Peaks()
    device: Literal["cpu", "cuda"] = "cpu"


class Experience(Word):
    """A finished run: what it was to cost, and what it cost. ``watts`` is its mean power."""

    run_id: str
    plan: RunPlan
    spent: Spent
    peaks: Peaks
    device: Literal["cpu", "cuda"]


def add_expense(connection: Connection, expense: Expense) -> int:
    """Enter a row; return its number. Rows are never changed, but for that of a stretch of work that goes on."""
    added = insert(expenses).values(**_columns(expense)).returning(expenses.c.expense_id)
    return int(connection.execute(added).scalar_one())


def extend_expense(connection: Connection, expense_id: int, expense: Expense) -> None:
    """Let the row of a stretch of work that goes on tell what it cost so far, all of it."""
    connection.execute(update(expenses).where(expenses.c.expense_id == expense_id).values(**_columns(expense)))


def spent_in_night(connection: Connection, night: str) -> Spent:
    """Return what one night cost, by the ISO date on which it began."""
    return _sum(connection, expenses.c.night == night)


def spent_in_year(connection: Connection, year: int) -> Spent:
    """Return what one calendar year cost."""
    return _sum(connection, expenses.c.year == year)


def of_run(connection: Connection, run_id: str) -> Spent:
    """Return what one run cost so far."""
    return _sum(connection, expenses.c.run_id == run_id)


def list_expenses(connection: Connection, since: float = 0.0, most: int | None = None) -> list[Expense]:
    """Return the rows that ended at ``since`` (UTC seconds) or later, newest first, at most ``most`` of them."""
    query = select(expenses).where(expenses.c.ended_at >= since).order_by(expenses.c.expense_id.desc()).limit(most)
    return [_view(row) for row in connection.execute(query)]


def experiences(connection: Connection, plugin: str, most: int) -> list[Experience]:
    """Return the newest finished runs of a plugin that have a plan and a ledger, at most ``most`` of them."""
    query = (
        select(runs.c.run_id, runs.c.plan)
        .where(runs.c.plugin == plugin, runs.c.state == RunState.FINISHED.value, runs.c.plan.is_not(None))
        .where(runs.c.run_id.in_(select(expenses.c.run_id)))
        .order_by(runs.c.finished_at.desc(), runs.c.run_id)
        .limit(most)
    )
    return [_experience(connection, row.run_id, row.plan) for row in connection.execute(query).all()]


def _experience(connection: Connection, run_id: str, plan: str) -> Experience:
    query = select(expenses).where(expenses.c.run_id == run_id).order_by(expenses.c.expense_id)
    rows = [_view(row) for row in connection.execute(query)]
    return Experience(
        run_id=run_id,
        plan=RunPlan.model_validate_json(plan),
        spent=of_run(connection, run_id),
        peaks=_most([row.peaks for row in rows]),
        device=rows[-1].device,
    )


def _most(peaks: list[Peaks]) -> Peaks:
    """Return the highest of each, and all steps together."""
    known = {
        name: [value for peak in peaks if (value := getattr(peak, name)) is not None] for name in Peaks.model_fields
    }
    return Peaks(**{name: sum(of) if name == "steps" else max(of) for name, of in known.items() if of})


def _columns(expense: Expense) -> dict[str, Any]:
    details = {"sentence": expense.sentence, "device": expense.device, "peaks": expense.peaks.model_dump(mode="json")}
    return {
        **expense.model_dump(exclude={"spent", "peaks", "sentence", "device"}),
        **expense.spent.model_dump(),
        "details": json.dumps(details),
    }


def _sum(connection: Connection, which: ColumnElement[bool]) -> Spent:
    columns = (func.coalesce(func.sum(expenses.c[name]), 0.0).label(name) for name in Spent.model_fields)
    return Spent(**connection.execute(select(*columns).where(which)).one()._mapping)


def _view(row: Row[Any]) -> Expense:
    details = json.loads(row.details)
    return Expense(
        run_id=row.run_id,
        plugin=row.plugin,
        kind=row.kind,
        code=row.code,
        sentence=details.get("sentence", ""),
        began_at=row.began_at,
        ended_at=row.ended_at,
        night=row.night,
        year=row.year,
        spent=Spent(seconds=row.seconds, kwh=row.kwh, pf_days=row.pf_days, money=row.money),
        peaks=Peaks.model_validate(details.get("peaks", {})),
        device=details.get("device", "cpu"),
    )
