"""The log of the daemon for people on either socket: the newest lines, which it keeps in memory."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

from fastapi import APIRouter, Query

from clinic_ai.control.asking import Anyone, Having
from clinic_ai.control.log_views import ChangesView, Level, LogLineView, LogPage
from clinic_ai.control.views import EventView
from clinic_ai.store import changes

router = APIRouter(prefix="/v1", tags=["log"])

MAX_LINES = 2000
MAX_CHANGES = 1000
MAX_NUMBER = 2**63 - 1

Id = Annotated[str | None, Query(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


@router.get("/log")
def get_log(
    services: Having,
    person: Anyone,  # noqa: ARG001 - the role
    after: Annotated[int | None, Query(ge=0, le=MAX_NUMBER, description="Only lines after this number.")] = None,
    words: Annotated[str, Query(max_length=200, description="Only lines with all of these words.")] = "",
    study: Id = None,
    run: Id = None,
    job: Id = None,
    worker: Annotated[str | None, Query(max_length=64, description="Plugin, lane, channel or source.")] = None,
    level: Annotated[Level, Query(description="Only lines of at least this level.")] = Level.DEBUG,
    limit: Annotated[int, Query(ge=1, le=MAX_LINES, description="Lines at most.")] = 500,
) -> LogPage:
    """Return lines of the log, oldest first: those after a number, or without one the newest."""
    kept = services.log.lines()
    last = kept[-1].seq if kept else 0
    # Whoever asks for lines after one that is yet to come knows an earlier run of the daemon.
    known = after if after is not None and after <= last else None
    views = (LogLineView.model_validate(line) for line in kept if known is None or line.seq > known)
    ids = [wanted for wanted in (study, run, job) if wanted is not None]
    found = (
        view
        for view in views
        if view.weighs(level)
        and view.has(words)
        and all(wanted in view.line for wanted in ids)
        and (worker is None or view.is_of(worker))
    )
    lines = tuple(found)[-limit:] if known is None else tuple(islice(found, limit))
    missed = max(kept[0].seq - known - 1, 0) if known is not None and kept else 0
    return LogPage(began=services.log.began, last=last, missed=missed, lines=lines)


@router.get("/changes")
def get_changes(
    services: Having,
    person: Anyone,  # noqa: ARG001 - the role
    after: Annotated[int | None, Query(ge=0, le=MAX_NUMBER, description="Only changes after this number.")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_CHANGES, description="Changes at most.")] = 200,
) -> ChangesView:
    """Return changes that the audit records, oldest first: those after a number, or without one the newest."""
    with services.database.read() as connection:
        seq = after if after is not None else max(changes.last_seq(connection) - limit, 0)
        found = changes.after(connection, seq, limit=limit)
    return ChangesView(changes=tuple(EventView.model_validate(change) for change in found))
