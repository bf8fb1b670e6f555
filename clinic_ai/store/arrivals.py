"""What the assembler asks of open studies: how much of each is there, counted by the database and not by reading it.

Functions take the connection of the caller's transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, select

from clinic_ai.store.studies import in_version
from clinic_ai.store.tables import instances


@dataclass(frozen=True)
class Counted:
    """So many instances of one acquisition of one series, and the largest numbers that their headers announce."""

    series_instance_uid: str
    series_number: int | None
    acquisition_number: int | None
    instances: int
    in_study: int | None
    in_series: int | None
    in_acquisition: int | None
    series_in_study: int | None


@dataclass(frozen=True)
class Stamp:
    """What is different after anything was added to a study version or taken from it."""

    instances: int
    newest: int


def stamp(connection: Connection, study_id: str, version: int) -> Stamp:
    """Return the stamp of a study version as it is now."""
    query = select(func.count(), func.max(instances.c.instance_id)).where(*in_version(study_id, version))
    count, newest = connection.execute(query).one()
    return Stamp(int(count), int(newest or 0))


def counts_of(connection: Connection, study_id: str, version: int) -> list[Counted]:
    """Return how many instances of each series and acquisition a version has."""
    series, acquisition = _said("series_instance_uid"), _said("acquisition_number")
    query = (
        select(
            func.coalesce(series, ""),
            func.max(_said("series_number")),
            acquisition,
            func.count(),
            func.max(_said("number_of_study_related_instances")),
            func.max(_said("number_of_series_related_instances")),
            func.max(_said("images_in_acquisition")),
            func.max(_said("number_of_study_related_series")),
        )
        .where(*in_version(study_id, version))
        .group_by(series, acquisition)
    )
    return [Counted(*row) for row in connection.execute(query)]


def _said(field: str) -> ColumnElement[Any]:
    return func.json_extract(instances.c.header, f"$.{field}")
