"""The queue, as the terminal shows it: only what is to be seen is asked for."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from clinic_ai.control.asking import Having
from clinic_ai.control.desk import study_row
from clinic_ai.control.queue_views import QueuePage, QueueRow
from clinic_ai.domain import QueueSort
from clinic_ai.store import queue

router = APIRouter(tags=["studies"])

MAX_WINDOW = 500
MAX_NUMBER = 2**63 - 1


@router.get("/v1/queue")
def get_queue(
    services: Having,
    sort: QueueSort = QueueSort.ARRIVAL,
    reverse: Annotated[bool, Query(description="The other way round; urgent studies stay on top.")] = False,
    words: Annotated[str, Query(max_length=200, description="Only studies that have all of these words.")] = "",
    offset: Annotated[int, Query(ge=0, le=MAX_NUMBER, description="How many from the top are left out.")] = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_WINDOW, description="Rows of the answer.")] = 100,
    study: Annotated[str | None, Query(max_length=100, description="A study whose place is asked for.")] = None,
    version: Annotated[int | None, Query(ge=1, le=MAX_NUMBER, description="Its version; else the newest.")] = None,
) -> QueuePage:
    """Return a part of the queue: every study version that is not superseded, critical and urgent ones on top."""
    with services.database.read() as connection:
        page = queue.look(
            connection,
            sort=sort,
            reverse=reverse,
            words=words.split(),
            offset=offset,
            limit=limit,
            study_id=study,
            version=version,
        )
    return QueuePage(studies=tuple(map(_row, page.rows)), offset=page.offset, total=page.total, place=page.place)


def _row(queued: queue.Queued) -> QueueRow:
    verdict = queued.verdict
    return QueueRow(
        **dict(study_row(queued.study)),
        urgent=queued.urgent,
        critical=queued.critical,
        verdict="" if verdict is None else verdict.action.value,
        rejected=verdict is not None and verdict.rejected,
        at_work=queued.work.at_work,
        turns=queued.work.turns,
    )
