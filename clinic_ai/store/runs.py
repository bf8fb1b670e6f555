"""Training runs: every move goes through ``states.RUN`` and into the audit, progress does not."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any, Literal

from sqlalchemy import Connection, Row, insert, or_, select, update

from clinic_ai import states
from clinic_ai.contract import TrainingPlan, TrainingProgress, TrainingResult
from clinic_ai.domain import Key, ModelRef, PauseCode, RunState, Word, new_id
from clinic_ai.errors import NotFound
from clinic_ai.gating import GateReport
from clinic_ai.store.audit import record
from clinic_ai.store.gates import add_report
from clinic_ai.store.models import Then
from clinic_ai.store.tables import runs

RecipeValue = float | int | str | bool
Origin = Literal["person", "night"]
"""Who planned a run: a person, or the night by a ``[[training.plan]]`` of the settings."""

_BY_ITSELF = tuple(code.value for code in PauseCode if code.by_itself)


class RunPlan(TrainingPlan):
    """What a run will cost, and the model it starts from: pinned at the first start, for every resumption."""

    base: ModelRef | None = None


class RunProgress(TrainingProgress):
    """Where a run stands, and how the machine fares with it; None where nothing measures."""

    memory_mb: int | None = None
    """Resident memory of its process, MiB."""
    temperature_c: float | None = None
    """Of the GPU it computes on, else of the processor."""
    power_w: float | None = None


class RunResult(TrainingResult):
    """How a run ended; ``candidate`` is the model it gave the registry."""

    candidate: ModelRef | None = None


class RunView(Word):
    """One training run. ``error`` says why it is not running, or how it failed, and what to do.

    ``plan``, ``progress`` and ``result`` are the documents RunPlan, RunProgress and RunResult. ``pause_code`` is a
    PauseCode while it is paused or may not start, else empty; ``plan_key`` names its ``[[training.plan]]``.
    """

    run_id: str
    plugin: Key
    state: RunState
    dataset_id: str
    recipe: dict[str, RecipeValue]
    plan: dict[str, Any] | None
    progress: dict[str, Any] | None
    result: dict[str, Any] | None
    error: str
    created_at: float
    started_at: float | None
    finished_at: float | None
    origin: Origin = "person"
    plan_key: str = ""
    at_once: bool = False
    """Whether a person did not want to wait for a window."""
    pause_code: str = ""
    paused_at: float | None = None

    @property
    def planned(self) -> RunPlan | None:
        """Return the plan with its type, None if there is none yet."""
        return None if self.plan is None else RunPlan.model_validate(self.plan)

    @property
    def goes_on(self) -> bool:
        """Whether it begins or goes on by itself once it may."""
        return self.state is RunState.PLANNED or (self.state is RunState.PAUSED and self.pause_code in _BY_ITSELF)

    @property
    def trained(self) -> RunResult | None:
        """Return what the trainer made, None before that; a run that is not finished has yet to be examined."""
        return None if self.result is None else RunResult.model_validate(self.result)


def add_run(
    connection: Connection,
    plugin: str,
    dataset_id: str,
    recipe: Mapping[str, RecipeValue],
    actor: str,
    *,
    origin: Origin = "person",
    plan_key: str = "",
    at_once: bool = False,
    at: float = 0.0,
) -> str:
    """Plan a run; return its id. ``at`` is UTC seconds, 0 for now."""
    run_id = new_id("R")
    connection.execute(
        insert(runs).values(
            run_id=run_id,
            plugin=plugin,
            state=RunState.PLANNED.value,
            dataset_id=dataset_id,
            recipe=json.dumps(dict(recipe)),
            created_at=at or time.time(),
            origin=origin,
            plan_key=plan_key,
            at_once=int(at_once),
        )
    )
    details = {"plugin": plugin, "dataset": dataset_id, "recipe": dict(recipe), "origin": origin, "at_once": at_once}
    record(connection, actor=actor, action="run.planned", subject=run_id, details=details)
    return run_id


def get_run(connection: Connection, run_id: str) -> RunView:
    """Return a run. Raise NotFound if there is none of that id."""
    row = connection.execute(select(runs).where(runs.c.run_id == run_id)).first()
    if row is None:
        raise NotFound(f"There is no training run {run_id}.", remedy="`clinic-ai train list` shows all.")
    return _view(row)


def list_runs(connection: Connection, limit: int | None = None, before: str | None = None) -> list[RunView]:
    """Return all runs, newest first; or ``limit`` of them, after the one ``before``. Raise NotFound if that is none."""
    query = select(runs).order_by(runs.c.created_at.desc(), runs.c.run_id)
    if before is not None:
        at = get_run(connection, before).created_at
        query = query.where(or_(runs.c.created_at < at, (runs.c.created_at == at) & (runs.c.run_id > before)))
    return [_view(row) for row in connection.execute(query.limit(limit))]


def living(connection: Connection) -> list[RunView]:
    """Return the runs that are at work or go on by themselves, newest first."""
    states_of_life = (RunState.PLANNED.value, RunState.RUNNING.value, RunState.PAUSED.value)
    query = select(runs).where(runs.c.state.in_(states_of_life)).order_by(runs.c.created_at.desc(), runs.c.run_id)
    found = [_view(row) for row in connection.execute(query)]
    return [run for run in found if run.state is RunState.RUNNING or run.goes_on]


def next_planned(connection: Connection) -> RunView | None:
    """Return the planned run that was asked for first, None if none is planned."""
    query = select(runs).where(runs.c.state == RunState.PLANNED.value).order_by(runs.c.created_at, runs.c.run_id)
    row = connection.execute(query.limit(1)).first()
    return None if row is None else _view(row)


def startable(connection: Connection) -> list[RunView]:
    """Return what may begin or go on by itself, in this order: runs that are not to wait, then the oldest."""
    paused = (runs.c.state == RunState.PAUSED.value) & runs.c.pause_code.in_(_BY_ITSELF)
    query = select(runs).where(or_(runs.c.state == RunState.PLANNED.value, paused))
    rows = connection.execute(query.order_by(runs.c.at_once.desc(), runs.c.created_at, runs.c.run_id))
    return [_view(row) for row in rows]


def last_of_plan(connection: Connection, plan_key: str) -> RunView | None:
    """Return the newest run of a ``[[training.plan]]``, None if there was none."""
    query = select(runs).where(runs.c.plan_key == plan_key).order_by(runs.c.created_at.desc(), runs.c.run_id.desc())
    row = connection.execute(query.limit(1)).first()
    return None if row is None else _view(row)


def hold(connection: Connection, run_id: str, code: PauseCode, error: str) -> bool:
    """Say why a planned run, or one that the machine paused, may not start yet; return whether its code is news.

    Not audited: nothing moves.
    """
    run = get_run(connection, run_id)
    if not run.goes_on or (run.pause_code, run.error) == (code.value, error):
        return False
    connection.execute(update(runs).where(runs.c.run_id == run_id).values(pause_code=code.value, error=error))
    return run.pause_code != code.value


def orphans(connection: Connection, owner: str) -> list[str]:
    """Return the running runs whose daemon is gone."""
    query = select(runs.c.run_id).where(
        runs.c.state == RunState.RUNNING.value, runs.c.lease_owner.is_distinct_from(owner)
    )
    return list(connection.execute(query).scalars())


def save_plan(connection: Connection, run_id: str, plan: RunPlan) -> None:
    """Store what a run will cost and start from."""
    connection.execute(update(runs).where(runs.c.run_id == run_id).values(plan=plan.model_dump_json()))


def save_progress(connection: Connection, run_id: str, progress: RunProgress) -> None:
    """Store where a run stands; not audited."""
    connection.execute(update(runs).where(runs.c.run_id == run_id).values(progress=progress.model_dump_json()))


def begin(connection: Connection, run_id: str, owner: str) -> None:
    """Mark a planned run as running for this daemon. Raise Conflict if its state does not permit it."""
    started = get_run(connection, run_id).started_at or time.time()
    fresh: dict[str, Any] = {"error": "", "pause_code": "", "paused_at": None, "finished_at": None}
    _move(connection, run_id, "start", actor="clinic-ai", lease_owner=owner, started_at=started, **fresh)


def resume(connection: Connection, run_id: str, actor: str, *, at_once: bool | None = None) -> None:
    """Queue a paused, stopped or failed run again; ``at_once`` changes whether it is to wait for a window.

    One that is planned already only stops waiting for it. Raise Conflict if its state does not permit it.
    """
    run = get_run(connection, run_id)
    if at_once and run.state is RunState.PLANNED and not run.at_once:
        fresh = {"at_once": 1, "error": "", "pause_code": ""}
        connection.execute(update(runs).where(runs.c.run_id == run_id).values(**fresh))
        record(connection, actor=actor, action="run.hastened", subject=run_id, details={"state": run.state.value})
        return
    changed = {} if at_once is None else {"at_once": int(at_once)}
    _move(connection, run_id, "resume", actor=actor, error="", pause_code="", finished_at=None, **changed)


def pause(
    connection: Connection, run_id: str, error: str, actor: str, *, code: PauseCode = PauseCode.PERSON, at: float = 0.0
) -> None:
    """Mark a running run as paused; its process is gone. ``at`` is UTC seconds, 0 for now.

    Raise Conflict if its state does not permit it.
    """
    now = at or time.time()
    _move(connection, run_id, "pause", actor=actor, lease_owner=None, error=error, pause_code=code.value, paused_at=now)


def save_result(connection: Connection, run_id: str, result: TrainingResult) -> None:
    """Store what the trainer made before it is examined: a run that is paused then need not train again."""
    document = RunResult(**result.model_dump())
    connection.execute(update(runs).where(runs.c.run_id == run_id).values(result=document.model_dump_json()))


def finish_with(run_id: str, result: TrainingResult, report: GateReport | None = None) -> Then:
    """Return what finishes a run, and stores the report of its examination, as its candidate is entered."""

    def finish(connection: Connection, candidate: ModelRef) -> None:
        if report is not None:
            add_report(connection, report, of=candidate)
        document = RunResult(**{**result.model_dump(), "candidate": candidate})
        end(connection, run_id, "finish", actor="clinic-ai", result=document)

    return finish


def end(
    connection: Connection, run_id: str, event: str, *, actor: str, error: str = "", result: RunResult | None = None
) -> None:
    """End a run by ``finish``, ``stop`` or ``fail``. Raise Conflict if its state does not permit it."""
    values: dict[str, Any] = {"lease_owner": None, "error": error, "pause_code": "", "finished_at": time.time()}
    if event == "fail":
        values["result"] = None  # what was made may be the reason; a resumption makes it anew
    if result is not None:
        values["result"] = result.model_dump_json()
    _move(connection, run_id, event, actor=actor, **values)


def _move(connection: Connection, run_id: str, event: str, *, actor: str, **values: Any) -> None:
    state = states.step(states.RUN, get_run(connection, run_id).state, event)
    connection.execute(update(runs).where(runs.c.run_id == run_id).values(state=state.value, **values))
    record(
        connection,
        actor=actor,
        action=f"run.{event}",
        subject=run_id,
        details={"state": state.value, "error": values.get("error") or "", "code": values.get("pause_code") or ""},
    )


def _view(row: Row[Any]) -> RunView:
    return RunView(
        run_id=row.run_id,
        plugin=row.plugin,
        state=RunState(row.state),
        dataset_id=row.dataset_id,
        recipe=json.loads(row.recipe),
        plan=None if row.plan is None else json.loads(row.plan),
        progress=None if row.progress is None else json.loads(row.progress),
        result=None if row.result is None else json.loads(row.result),
        error=row.error,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        origin=row.origin,
        plan_key=row.plan_key,
        at_once=bool(row.at_once),
        pause_code=row.pause_code,
        paused_at=row.paused_at,
    )
