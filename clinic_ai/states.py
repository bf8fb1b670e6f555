"""The life of everything, as tables ``(state, event) → state``; tests are generated from them.

A pair that is not in a table is a mistake of the program, and ``step`` says so: nothing moves by accident.
Each transition is one database transaction and one audit row.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from clinic_ai.domain import ArtefactState, DeliveryState, Fate, JobState, ModelState, RunState, StudyState
from clinic_ai.errors import Conflict

S = TypeVar("S", bound=StrEnum)
Table = Mapping[tuple[S, str], S]

FILE: Table[Fate] = {
    (Fate.CLAIMING, "confirm"): Fate.CLAIMED,
    (Fate.CLAIMING, "vanish"): Fate.VANISHED,
    (Fate.CLAIMING, "ignore"): Fate.IGNORED,
    (Fate.CLAIMING, "quarantine"): Fate.QUARANTINED,
    (Fate.CLAIMED, "confirm"): Fate.CLAIMED,  # hashed again after a crash
    (Fate.CLAIMED, "store"): Fate.STORED,
    (Fate.CLAIMED, "note_duplicate"): Fate.DUPLICATE,
    (Fate.CLAIMED, "quarantine"): Fate.QUARANTINED,
    (Fate.CLAIMED, "vanish"): Fate.VANISHED,  # somebody emptied the spool
    # Only a person takes a file out of the quarantine.
    (Fate.QUARANTINED, "accept"): Fate.CLAIMED,
    (Fate.QUARANTINED, "discard"): Fate.DISCARDED,
}

STUDY: Table[StudyState] = {
    (StudyState.RECEIVING, "close"): StudyState.CLOSED,
    (StudyState.CLOSED, "route"): StudyState.ROUTED,
    (StudyState.CLOSED, "no_rule"): StudyState.UNROUTED,
    (StudyState.CLOSED, "lack_originals"): StudyState.UNROUTED,  # retention removed them; they can be sent again
    (StudyState.UNROUTED, "reroute"): StudyState.CLOSED,
    (StudyState.ROUTED, "finish"): StudyState.DONE,
    (StudyState.ROUTED, "fail"): StudyState.FAILED,
    (StudyState.RECEIVING, "supersede"): StudyState.SUPERSEDED,
    (StudyState.CLOSED, "supersede"): StudyState.SUPERSEDED,
    (StudyState.ROUTED, "supersede"): StudyState.SUPERSEDED,
    (StudyState.UNROUTED, "supersede"): StudyState.SUPERSEDED,
    (StudyState.DONE, "supersede"): StudyState.SUPERSEDED,
    (StudyState.FAILED, "supersede"): StudyState.SUPERSEDED,
}

JOB: Table[JobState] = {
    (JobState.QUEUED, "lease"): JobState.LEASED,
    (JobState.QUEUED, "cancel"): JobState.CANCELLED,
    (JobState.LEASED, "succeed"): JobState.DONE,
    (JobState.LEASED, "retry"): JobState.QUEUED,
    (JobState.LEASED, "interrupt"): JobState.QUEUED,
    (JobState.LEASED, "give_up"): JobState.FAILED,
    (JobState.LEASED, "cancel"): JobState.CANCELLED,
}

ARTEFACT: Table[ArtefactState] = {
    (ArtefactState.DRAFT, "release"): ArtefactState.PRELIMINARY,
    (ArtefactState.DRAFT, "hold"): ArtefactState.HELD,
    (ArtefactState.DRAFT, "block"): ArtefactState.BLOCKED,
    (ArtefactState.HELD, "accept"): ArtefactState.PRELIMINARY,
    (ArtefactState.HELD, "reject"): ArtefactState.REJECTED,
    (ArtefactState.HELD, "supersede"): ArtefactState.SUPERSEDED,
    (ArtefactState.BLOCKED, "supersede"): ArtefactState.SUPERSEDED,
    (ArtefactState.PRELIMINARY, "sign"): ArtefactState.FINAL,
    (ArtefactState.PRELIMINARY, "reject"): ArtefactState.REJECTED,
    (ArtefactState.PRELIMINARY, "supersede"): ArtefactState.SUPERSEDED,
    (ArtefactState.FINAL, "supersede"): ArtefactState.SUPERSEDED,
}

DELIVERY: Table[DeliveryState] = {
    (DeliveryState.PENDING, "send"): DeliveryState.SENT,
    (DeliveryState.PENDING, "give_up"): DeliveryState.FAILED,
    (DeliveryState.SENT, "receipt"): DeliveryState.RECEIPTED,
    (DeliveryState.FAILED, "requeue"): DeliveryState.PENDING,
}

RUN: Table[RunState] = {
    (RunState.PLANNED, "start"): RunState.RUNNING,
    (RunState.PLANNED, "stop"): RunState.STOPPED,
    (RunState.PLANNED, "fail"): RunState.FAILED,
    (RunState.RUNNING, "pause"): RunState.PAUSED,
    (RunState.RUNNING, "finish"): RunState.FINISHED,
    (RunState.RUNNING, "stop"): RunState.STOPPED,
    (RunState.RUNNING, "fail"): RunState.FAILED,
    (RunState.PAUSED, "start"): RunState.RUNNING,
    (RunState.PAUSED, "stop"): RunState.STOPPED,
    (RunState.PAUSED, "fail"): RunState.FAILED,
    # Checkpoints outlive the process: whatever ended before it was finished may queue again.
    (RunState.PAUSED, "resume"): RunState.PLANNED,
    (RunState.STOPPED, "resume"): RunState.PLANNED,
    (RunState.FAILED, "resume"): RunState.PLANNED,
}

MODEL: Table[ModelState] = {
    (ModelState.IMPORTED, "promote"): ModelState.ACTIVE,
    (ModelState.CANDIDATE, "promote"): ModelState.ACTIVE,
    (ModelState.CANDIDATE, "reject"): ModelState.REJECTED,
    (ModelState.ACTIVE, "retire"): ModelState.RETIRED,
    (ModelState.RETIRED, "promote"): ModelState.ACTIVE,
}


def step(table: Table[S], state: S, event: str) -> S:
    """Return the state that follows. Raise Conflict if the table has no such transition."""
    try:
        return table[(state, event)]
    except KeyError:
        what = type(state).__name__.removesuffix("State").lower()
        raise Conflict(
            f"This {what} is {state.value}, which does not permit '{event}'.",
            remedy="Look at its present state; it may have moved on meanwhile.",
        ) from None
