"""The queue as people look at it: any part of it, in any order, whatever its length."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, case, func, literal_column, or_, select, tuple_

from clinic_ai.domain import ArtefactState, GuardAction, JobKind, JobState, QueueSort, Study, StudyState
from clinic_ai.store import critical
from clinic_ai.store.studies import study_of_row
from clinic_ai.store.tables import artefacts, jobs, studies

HELD = "held"
"""Code of the WaitReason of a study whose result the guard held."""
URGENT, CRITICAL = 1, 2

_SHOWN = tuple(state.value for state in StudyState if state is not StudyState.SUPERSEDED)
_WANTING_A_PERSON = {
    StudyState.FAILED: 0,
    StudyState.UNROUTED: 1,
    StudyState.RECEIVING: 3,
    StudyState.CLOSED: 4,
    StudyState.ROUTED: 5,
    StudyState.DONE: 6,
}
_HELD_PLACE = 2
_COLUMNS = {
    QueueSort.ARRIVAL: "opened_at",
    QueueSort.WAIT: "opened_at",
    QueueSort.PATIENT: "pseudonym",
    QueueSort.MODALITY: "modality",
    QueueSort.SOURCE: "source",
    QueueSort.PRIORITY: "priority",
}
_NUMBER: ColumnElement[int] = literal_column("studies.rowid")

Key = tuple[str, int]


@dataclass(frozen=True)
class Verdict:
    """The strictest that the guard decided of a study version; ``rejected``: a person let none of that go out."""

    action: GuardAction
    rejected: bool


@dataclass(frozen=True)
class Work:
    """What is done for a study version now: who is at work on it, and how many of its jobs wait for their turn.

    ``at_work`` names plugins; an empty name is the report.
    """

    at_work: tuple[str, ...] = ()
    turns: int = 0


@dataclass(frozen=True)
class Queued:
    """A study version in the queue; ``verdict`` is None until the guard was asked."""

    study: Study
    urgent: bool
    critical: bool
    verdict: Verdict | None = None
    work: Work = field(default_factory=Work)


@dataclass(frozen=True)
class Page:
    """A part of the queue, from place ``offset`` (0: the top).

    ``total`` studies have the words that were looked for; ``place`` is where the study stands that was asked about,
    None if it is not among them.
    """

    rows: tuple[Queued, ...]
    offset: int
    total: int
    place: int | None


def look(
    connection: Connection,
    *,
    sort: QueueSort = QueueSort.ARRIVAL,
    reverse: bool = False,
    words: Sequence[str] = (),
    offset: int = 0,
    limit: int = 100,
    study_id: str | None = None,
    version: int | None = None,
) -> Page:
    """Return a part of the queue: the study versions that are not superseded and have all the ``words``.

    Those with an open critical alert stand on top, then the urgent ones that are not done, each in the order of
    ``sort``. Words are found in state, modality, body part, source, pseudonym, identifier and reason to wait;
    ``held``, ``urgent`` and ``critical`` find what is so. ``study_id`` and ``version`` ask for a place.
    """
    alarming = {alert.study_id for alert in critical.open_critical(connection)}
    rank = _rank(alarming)
    having = (studies.c.state.in_(_SHOWN), *_having(words, rank))
    everything = select(_NUMBER).where(*having).order_by(rank.desc(), *_order(sort, reverse=reverse))
    numbers = list(connection.execute(everything.limit(limit).offset(offset)).scalars())
    return Page(
        rows=_rows(connection, numbers, alarming),
        offset=offset,
        total=connection.execute(select(func.count()).select_from(studies).where(*having)).scalar_one(),
        place=None if study_id is None else _place(connection, study_id, version, everything, numbers, offset),
    )


# ---------------------------------------------------------------- what stands where


def _rank(alarming: Collection[str]) -> ColumnElement[int]:
    urgent = and_(studies.c.priority > 0, _unfinished())
    if not alarming:
        return case((urgent, URGENT), else_=0)
    return case((studies.c.study_id.in_(sorted(alarming)), CRITICAL), (urgent, URGENT), else_=0)


def _order(sort: QueueSort, *, reverse: bool) -> list[ColumnElement[Any]]:
    column, highest_first = _by(sort)
    first: list[ColumnElement[Any]] = [case((_unfinished(), 0), else_=1)] if sort is QueueSort.WAIT else []
    newest_first = [studies.c.opened_at.desc(), studies.c.study_id.desc(), studies.c.version.desc()]
    return [*first, column.desc() if highest_first is not reverse else column.asc(), *newest_first]


def _by(sort: QueueSort) -> tuple[ColumnElement[Any], bool]:
    """Return what is sorted by, and whether the highest comes first."""
    if sort is QueueSort.STATE:
        steps = [(studies.c.state == state.value, place) for state, place in _WANTING_A_PERSON.items()]
        return case((_held(), _HELD_PLACE), *steps, else_=len(_WANTING_A_PERSON) + 1), False
    return studies.c[_COLUMNS[sort]], sort in {QueueSort.ARRIVAL, QueueSort.PRIORITY}


def _unfinished() -> ColumnElement[bool]:
    """Return whether a study is not done, or waits for something all the same."""
    return or_(studies.c.state != StudyState.DONE.value, studies.c.wait_code != "")


def _held() -> ColumnElement[bool]:
    return and_(studies.c.state == StudyState.DONE.value, studies.c.wait_code == HELD)


def _having(words: Sequence[str], rank: ColumnElement[int]) -> list[ColumnElement[bool]]:
    return [or_(*_saying(word, rank)) for word in words]


def _saying(word: str, rank: ColumnElement[int]) -> Iterator[ColumnElement[bool]]:
    """Yield the places where a word may stand, each by itself: to join them first costs more than to look."""
    for sign, held in (("/", "//"), ("%", "/%"), ("_", "/_")):
        word = word.replace(sign, held)
    for name in ("pseudonym", "modality", "source", "state", "body_parts", "wait_sentence", "study_id"):
        yield studies.c[name].like(f"%{word}%", escape="/")  # SQLite's makes nothing of case
    for said, is_so in ((HELD, _held()), ("urgent", rank >= URGENT), ("critical", rank == CRITICAL)):
        if word.casefold() in said:
            yield is_so


def _place(
    connection: Connection,
    study_id: str,
    version: int | None,
    everything: Select[Any],
    numbers: Sequence[int],
    offset: int,
) -> int | None:
    """Return where this version of a study stands, or else the newest that stands there.

    ``numbers`` stand from ``offset`` on: where it is among them, the others need not be sorted.
    """
    query = select(studies.c.version, _NUMBER).where(studies.c.study_id == study_id)
    of_version = {row[0]: row[1] for row in connection.execute(query)}
    if version in of_version and of_version[version] in numbers:
        return offset + numbers.index(of_version[version])
    standing = list(connection.execute(everything).scalars())
    for one in (version, *sorted(of_version, reverse=True)):
        if one in of_version and of_version[one] in standing:
            return standing.index(of_version[one])
    return None


# ---------------------------------------------------------------- what is said of each


def _rows(connection: Connection, numbers: Sequence[int], alarming: Collection[str]) -> tuple[Queued, ...]:
    found = connection.execute(select(_NUMBER.label("number"), studies).where(_NUMBER.in_(numbers))).all()
    by_number = {row.number: study_of_row(row) for row in found}
    shown = [by_number[number] for number in numbers]
    keys = [(study.study_id, study.version) for study in shown]
    verdicts, work = _verdicts(connection, keys), _work(connection, keys)
    return tuple(
        Queued(
            study,
            urgent=study.priority > 0 and (study.state is not StudyState.DONE or study.wait is not None),
            critical=study.study_id in alarming,
            verdict=verdicts.get(key),
            work=work.get(key, Work()),
        )
        for study, key in zip(shown, keys, strict=True)
    )


def _verdicts(connection: Connection, keys: Sequence[Key]) -> Mapping[Key, Verdict]:
    action = func.json_extract(artefacts.c.verdict, "$.action")
    query = select(artefacts.c.study_id, artefacts.c.version, artefacts.c.state, action.label("action")).where(
        tuple_(artefacts.c.study_id, artefacts.c.version).in_(keys),
        artefacts.c.state != ArtefactState.SUPERSEDED.value,
    )
    found: dict[Key, Verdict] = {}
    for row in connection.execute(query):
        verdict = Verdict(GuardAction(row.action), rejected=row.state == ArtefactState.REJECTED.value)
        known = found.get((row.study_id, row.version))
        if known is None or known.action.severity < verdict.action.severity:
            found[row.study_id, row.version] = verdict
    return found


def _work(connection: Connection, keys: Sequence[Key]) -> Mapping[Key, Work]:
    query = select(jobs.c.study_id, jobs.c.version, jobs.c.kind, jobs.c.plugin, jobs.c.state).where(
        tuple_(jobs.c.study_id, jobs.c.version).in_(keys),
        jobs.c.state.in_((JobState.LEASED.value, JobState.QUEUED.value)),
    )
    at_work: dict[Key, list[str]] = defaultdict(list)
    turns: dict[Key, int] = defaultdict(int)
    for row in connection.execute(query.order_by(jobs.c.created_at, jobs.c.job_id)):
        key = row.study_id, row.version
        if row.state == JobState.LEASED.value:
            at_work[key].append(row.plugin if row.kind == JobKind.ANALYSE.value else "")
        else:
            turns[key] += 1
    return {key: Work(tuple(at_work[key]), turns[key]) for key in {*at_work, *turns}}
