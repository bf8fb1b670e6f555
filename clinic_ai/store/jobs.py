"""The job table: leases, retries and what analyses answered. Every move goes through ``states.JOB``."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import Connection, Row, Select, and_, exists, func, insert, or_, select, update

from clinic_ai import states
from clinic_ai.domain import Analysis, Job, JobKind, JobState, ModelRef, StoredFile, StudyState, WaitReason, new_id
from clinic_ai.errors import NotFound
from clinic_ai.store.audit import KEY, document_digest, record
from clinic_ai.store.tables import analyses, job_files, jobs, studies

_MODELS = TypeAdapter(tuple[ModelRef, ...])


def add_job(
    connection: Connection,
    *,
    kind: JobKind,
    study_id: str,
    version: int,
    plugin: str = "",
    rule: str = "",
    priority: int = 0,
) -> str:
    """Queue a job; return its id."""
    job_id = new_id("J")
    connection.execute(
        insert(jobs).values(
            job_id=job_id,
            kind=kind.value,
            study_id=study_id,
            version=version,
            plugin=plugin,
            rule=rule,
            state=JobState.QUEUED.value,
            priority=priority,
            created_at=time.time(),
        )
    )
    record(
        connection,
        actor="clinic-ai",
        action="job.queued",
        subject=study_id,
        details={"job": job_id, "kind": kind.value, "plugin": plugin, "rule": rule, "version": version},
    )
    return job_id


def get_job(connection: Connection, job_id: str) -> Job:
    """Return a job. Raise NotFound if there is none of that id."""
    row = connection.execute(select(jobs).where(jobs.c.job_id == job_id)).first()
    if row is None:
        raise NotFound(f"There is no job {job_id}.")
    return _job(row)


def jobs_of(connection: Connection, study_id: str, version: int) -> list[Job]:
    """Return the jobs of one study version, oldest first."""
    query = (
        select(jobs)
        .where(jobs.c.study_id == study_id, jobs.c.version == version)
        .order_by(jobs.c.created_at, jobs.c.job_id)
    )
    return [_job(row) for row in connection.execute(query)]


def counts(connection: Connection) -> dict[str, int]:
    """Return the number of jobs by state."""
    query = select(jobs.c.state, func.count().label("n")).group_by(jobs.c.state)
    return {row.state: row.n for row in connection.execute(query)}


def needed(connection: Connection, hopeless: Collection[str]) -> bool:
    """Return whether a study arrives or waits for its routing, or a job for its turn or its end.

    Queued jobs whose reason to wait is one of the ``hopeless`` codes do not count.
    """
    code = func.json_extract(jobs.c.wait, "$.code")
    awaited = or_(
        jobs.c.state == JobState.LEASED.value,
        and_(jobs.c.state == JobState.QUEUED.value, or_(code.is_(None), code.not_in(hopeless))),
    )
    moving = studies.c.state.in_((StudyState.RECEIVING.value, StudyState.CLOSED.value))
    query = select(or_(exists().where(moving), exists().where(awaited)))
    return bool(connection.execute(query).scalar())


def waiting_plugins(connection: Connection, kind: JobKind) -> list[str]:
    """Return the plugins that queued jobs of this kind name; reports name the plugin ``""``."""
    query = select(jobs.c.plugin).where(jobs.c.state == JobState.QUEUED.value, jobs.c.kind == kind.value).distinct()
    return list(connection.execute(query).scalars())


def next_due(
    connection: Connection, kind: JobKind, now: float, plugins: Collection[str], *, longest_s: float = math.inf
) -> Job | None:
    """Return the queued job that comes next of these plugins: the most urgent, then the oldest.

    A job that is to wait longer than ``longest_s`` was put off by a clock that has been set back since: it is due.
    """
    query = select(jobs).where(
        jobs.c.state == JobState.QUEUED.value,
        jobs.c.kind == kind.value,
        or_(jobs.c.not_before <= now, jobs.c.not_before > now + longest_s),
        jobs.c.plugin.in_(plugins),
    )
    row = connection.execute(query.order_by(jobs.c.priority.desc(), jobs.c.created_at, jobs.c.job_id).limit(1)).first()
    return None if row is None else _job(row)


def lease(connection: Connection, job: Job, owner: str, models: Sequence[ModelRef], policy_hash: str) -> Job:
    """Lease a queued job and pin what it will use. Raise Conflict if it is not queued any more."""
    now = time.time()
    _move(
        connection,
        job.job_id,
        "lease",
        attempt=jobs.c.attempt + 1,
        lease_owner=owner,
        models=_MODELS.dump_json(tuple(models)).decode(),
        policy_hash=policy_hash,
        started_at=now,
        wait=None,
    )
    return get_job(connection, job.job_id)


def succeed(connection: Connection, job_id: str) -> None:
    """Mark a leased job as done."""
    _move(connection, job_id, "succeed", lease_owner=None, finished_at=time.time(), error="")


def retry_later(
    connection: Connection, job_id: str, error: str, not_before: float, wait: WaitReason, *, counts: bool = True
) -> None:
    """Give a leased job back for another attempt at ``not_before``; ``counts`` is whether this one was an attempt."""
    _move(
        connection,
        job_id,
        "retry",
        lease_owner=None,
        attempt=jobs.c.attempt if counts else jobs.c.attempt - 1,
        error=error,
        not_before=not_before,
        wait=wait.model_dump_json(),
    )


def give_up(connection: Connection, job_id: str, error: str) -> None:
    """Mark a leased job as failed for good."""
    _move(connection, job_id, "give_up", lease_owner=None, error=error, finished_at=time.time())


def give_back(connection: Connection, job_id: str) -> None:
    """Return a leased job to the queue because the daemon is stopping; this costs no attempt."""
    _move(
        connection,
        job_id,
        "interrupt",
        lease_owner=None,
        attempt=jobs.c.attempt - 1,
        interruptions=jobs.c.interruptions + 1,
    )


def leased(connection: Connection) -> set[str]:
    """Return the ids of the jobs that somebody works at."""
    return set(connection.execute(select(jobs.c.job_id).where(jobs.c.state == JobState.LEASED.value)).scalars())


def leased_by_others(connection: Connection, owner: str) -> list[Job]:
    """Return the jobs that a daemon which is gone had leased."""
    query = select(jobs).where(jobs.c.state == JobState.LEASED.value, jobs.c.lease_owner != owner)
    return [_job(row) for row in connection.execute(query)]


def cancel(connection: Connection, job_id: str) -> None:
    """Cancel a queued or leased job whose result nobody wants any more."""
    _move(connection, job_id, "cancel", lease_owner=None, wait=None, finished_at=time.time())


def cancel_open(connection: Connection, study_id: str, version: int) -> int:
    """Cancel the queued jobs of a study version; return how many."""
    queued = [job for job in jobs_of(connection, study_id, version) if job.state is JobState.QUEUED]
    for job in queued:
        cancel(connection, job.job_id)
    return len(queued)


def hurry(connection: Connection, study_id: str, version: int) -> None:
    """Let the queued jobs of a study version run at once."""
    connection.execute(
        update(jobs)
        .where(jobs.c.study_id == study_id, jobs.c.version == version, jobs.c.state == JobState.QUEUED.value)
        .values(not_before=0.0, wait=None)
    )


def shift_priority(connection: Connection, study_id: str, version: int, by: int) -> None:
    """Add to the priority of all jobs of a study version, also of those done: what follows from them inherits it."""
    connection.execute(
        update(jobs).where(jobs.c.study_id == study_id, jobs.c.version == version).values(priority=jobs.c.priority + by)
    )


def waits_otherwise(connection: Connection, plugin: str, wait: WaitReason | None) -> bool:
    """Return whether any due job of a plugin has another reason to wait on record."""
    return connection.execute(_other_wait(plugin, wait).limit(1)).first() is not None


def set_wait(connection: Connection, plugin: str, wait: WaitReason | None) -> list[tuple[str, int]]:
    """Say why the due jobs of a plugin wait; return the study versions for which that is news."""
    rows = connection.execute(_other_wait(plugin, wait)).all()
    for row in rows:
        connection.execute(update(jobs).where(jobs.c.job_id == row.job_id).values(wait=_text(wait)))
    return [(row.study_id, row.version) for row in rows]


def wait_of(connection: Connection, study_id: str, version: int) -> WaitReason | None:
    """Return what a study version waits for: what its first open job does, but nothing while another can go on."""
    unfinished = [j for j in jobs_of(connection, study_id, version) if j.state in {JobState.QUEUED, JobState.LEASED}]
    waits = [job.wait for job in unfinished]
    return None if None in waits else next(iter(waits), None)


def _other_wait(plugin: str, wait: WaitReason | None) -> Select[tuple[str, str, int]]:
    return select(jobs.c.job_id, jobs.c.study_id, jobs.c.version).where(
        jobs.c.state == JobState.QUEUED.value,
        jobs.c.plugin == plugin,
        jobs.c.not_before <= time.time(),
        jobs.c.wait.is_distinct_from(_text(wait)),
    )


def _text(wait: WaitReason | None) -> str | None:
    return None if wait is None else wait.model_dump_json()


def save_analysis(connection: Connection, job: Job, analysis: Analysis, files: Iterable[StoredFile]) -> None:
    """Store what an engine answered, and the files it made."""
    document = analysis.model_dump_json()
    connection.execute(
        insert(analyses).values(
            job_id=job.job_id,
            study_id=job.study_id,
            version=job.version,
            document=document,
            created_at=time.time(),
        )
    )
    record(
        connection,
        actor="clinic-ai",
        action="analysis.stored",
        subject=job.study_id,
        details={
            "job": job.job_id,
            "version": job.version,
            "plugin": job.plugin,
            "models": [model.label() for model in job.models],
            KEY: document_digest(document),
        },
    )
    save_files(connection, job.job_id, files)


def save_files(connection: Connection, job_id: str, files: Iterable[StoredFile]) -> None:
    """Store the list of files a job made."""
    rows = [
        {
            "job_id": job_id,
            "name": f.name,
            "sha256": f.sha256,
            "size_bytes": f.size_bytes,
            "media_type": f.media_type,
        }
        for f in files
    ]
    if rows:
        connection.execute(insert(job_files), rows)


def analyses_of(connection: Connection, study_id: str, version: int) -> list[tuple[str, Analysis]]:
    """Return the analyses of one study version with their job ids: of each plugin the newest."""
    query = (
        select(analyses.c.job_id, analyses.c.document)
        .join(jobs, jobs.c.job_id == analyses.c.job_id)
        .where(analyses.c.study_id == study_id, analyses.c.version == version)
        .order_by(analyses.c.created_at)
    )
    newest: dict[str, tuple[str, Analysis]] = {}
    for job_id, document in connection.execute(query):
        analysis = Analysis.model_validate_json(document)
        newest[analysis.plugin] = (job_id, analysis)
    return list(newest.values())


def files_of(connection: Connection, job_id: str) -> tuple[StoredFile, ...]:
    """Return the files a job made."""
    query = select(job_files).where(job_files.c.job_id == job_id).order_by(job_files.c.name)
    return tuple(
        StoredFile(name=r.name, sha256=r.sha256, size_bytes=r.size_bytes, media_type=r.media_type)
        for r in connection.execute(query)
    )


def _move(connection: Connection, job_id: str, event: str, **values: Any) -> JobState:
    present = connection.execute(select(jobs.c.state).where(jobs.c.job_id == job_id)).scalar()
    if present is None:
        raise NotFound(f"There is no job {job_id}.")
    state = states.step(states.JOB, JobState(present), event)
    connection.execute(update(jobs).where(jobs.c.job_id == job_id).values(state=state.value, **values))
    record(
        connection,
        actor="clinic-ai",
        action=f"job.{event}",
        subject=job_id,
        details={"state": state.value, "error": values.get("error") or ""},
    )
    return state


def _job(row: Row[Any]) -> Job:
    return Job(
        job_id=row.job_id,
        kind=JobKind(row.kind),
        study_id=row.study_id,
        version=row.version,
        plugin=row.plugin,
        state=JobState(row.state),
        priority=row.priority,
        attempt=row.attempt,
        interruptions=row.interruptions,
        not_before=row.not_before,
        models=_MODELS.validate_python(json.loads(row.models)),
        policy_hash=row.policy_hash,
        rule=row.rule,
        error=row.error,
        wait=None if row.wait is None else WaitReason.model_validate_json(row.wait),
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )
