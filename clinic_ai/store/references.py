"""Who needs a stored object: every table that names one is listed here, and a test looks for those that are not.

Functions take the connection of the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum

from sqlalchemy import Column, ColumnElement, Connection, and_, exists, select, true

from clinic_ai.store.ledger import PENDING
from clinic_ai.store.tables import deidentified, files, instances, job_files, jobs, studies

MANY = 500
"""Hashes asked for at once; SQLite takes a limited number of variables."""


class Kind(StrEnum):
    """What an object is needed as."""

    ORIGINAL = "original"
    RESULT = "result"
    COPY = "copy"
    """A de-identified copy."""


def _has_originals(besides: str) -> ColumnElement[bool]:
    """Return the condition on ``instances`` that some version of its study since it came has its originals.

    One that a person replaced is kept like the others. ``besides`` is a study that does not count.
    """
    kept = exists().where(
        studies.c.study_id == instances.c.study_id,
        studies.c.version >= instances.c.first_version,
        studies.c.originals_removed_at.is_(None),
    )
    return and_(kept, instances.c.study_id != besides)


def _of_needed_original(besides: str) -> ColumnElement[bool]:
    """Return the condition on ``deidentified`` that the original is needed: else its copy can be made again."""
    return exists().where(instances.c.sha256 == deidentified.c.original_sha256, _has_originals(besides))


def _always(_: str) -> ColumnElement[bool]:
    return true()


REFERENCES: tuple[tuple[Kind, Column[str], Callable[[str], ColumnElement[bool]]], ...] = (
    (Kind.ORIGINAL, instances.c.sha256, _has_originals),
    (Kind.RESULT, job_files.c.sha256, _always),
    (Kind.COPY, deidentified.c.sha256, _of_needed_original),
)
"""Columns that name objects, by what they need them as, and the condition that a row counts, besides a study."""


def needed(connection: Connection, hashes: Sequence[str], *, besides: str = "") -> dict[str, Kind]:
    """Return those of ``hashes`` that are needed, and as what; an original that is also a result is an original.

    ``besides`` is a study whose originals do not count as needing themselves.
    """
    found: dict[str, Kind] = {}
    for kind, column, counts in REFERENCES:
        for some in _some(hashes):
            for sha256 in connection.execute(select(column).where(column.in_(some), counts(besides))).scalars():
                found.setdefault(sha256, kind)
    return found


def on_their_way(connection: Connection) -> set[str]:
    """Return the hashes of files whose fate is not decided yet; after a crash their object may be all there is."""
    pending = files.c.fate.in_([fate.value for fate in PENDING])
    return {str(sha256) for sha256 in connection.execute(select(files.c.sha256).where(pending)).scalars() if sha256}


def needed_in_slice(connection: Connection, prefix: str) -> dict[str, Kind]:
    """Return every object that is needed and whose hash begins with these two hexadecimal digits."""
    found: dict[str, Kind] = {}
    for kind, column, counts in REFERENCES:
        query = select(column).where(column >= prefix, column < prefix + "g", counts(""))
        for sha256 in connection.execute(query).scalars():
            found.setdefault(sha256, kind)
    return found


def studies_needing(connection: Connection, sha256: str) -> list[str]:
    """Return the studies whose originals or results include this object."""
    by_instance = select(instances.c.study_id).where(instances.c.sha256 == sha256)
    by_result = select(jobs.c.study_id).join(job_files, job_files.c.job_id == jobs.c.job_id)
    found = [*connection.execute(by_instance).scalars()]
    found += connection.execute(by_result.where(job_files.c.sha256 == sha256)).scalars()
    return list(dict.fromkeys(found))


def objects_of(connection: Connection, study_id: str) -> list[str]:
    """Return the hashes of all originals and results of a study."""
    own = select(instances.c.sha256).where(instances.c.study_id == study_id)
    made = select(job_files.c.sha256).join(jobs, jobs.c.job_id == job_files.c.job_id)
    made = made.where(jobs.c.study_id == study_id)
    return [*connection.execute(own).scalars(), *connection.execute(made).scalars()]


def _some(hashes: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(hashes), MANY):
        yield hashes[start : start + MANY]
