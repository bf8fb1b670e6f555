"""What the ledger says of the files of one import: those of a source whose name begins with its id."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, func, select

from clinic_ai.domain import Fate
from clinic_ai.store.tables import files


@dataclass(frozen=True)
class Known:
    """A file that was seen before; its name is ``raw_name``, time of change and size are those of the medium."""

    file_id: int
    raw_name: bytes
    size_bytes: int
    mtime_ns: int
    fate: Fate


@dataclass(frozen=True)
class Remark:
    """Why files were put aside, and how many."""

    fate: Fate
    code: str
    sentence: str
    remedy: str
    files: int


@dataclass(frozen=True)
class Summary:
    """What became of an import so far: files by fate, by study, and by reason."""

    fates: dict[Fate, int]
    studies: dict[str, int]
    remarks: tuple[Remark, ...]


def files_below(connection: Connection, source: str, prefix: bytes) -> list[Known]:
    """Return the files of a source whose name begins so, oldest first. Reads the whole ledger once."""
    columns = (files.c.file_id, files.c.raw_name, files.c.size_bytes, files.c.mtime_ns, files.c.fate)
    query = select(*columns).where(_below(source, prefix, 0)).order_by(files.c.file_id)
    return [
        Known(row.file_id, row.raw_name, row.size_bytes, row.mtime_ns, Fate(row.fate))
        for row in connection.execute(query)
    ]


def summary_below(connection: Connection, source: str, prefix: bytes, first: int) -> Summary:
    """Return what became of them; ``first`` is a number before which there is none."""
    these = _below(source, prefix, first)
    fates = connection.execute(select(files.c.fate, func.count()).where(these).group_by(files.c.fate))
    by_study = connection.execute(
        select(files.c.study_id, func.count())
        .where(these, files.c.study_id.is_not(None), files.c.fate.in_([Fate.STORED.value, Fate.DUPLICATE.value]))
        .group_by(files.c.study_id)
        .order_by(func.min(files.c.file_id))
    )
    remarks = connection.execute(
        select(
            files.c.fate,
            files.c.reason_code,
            func.min(files.c.reason).label("sentence"),
            func.min(files.c.remedy).label("remedy"),
            func.count().label("files"),
        )
        .where(these, files.c.fate.in_([Fate.QUARANTINED.value, Fate.IGNORED.value, Fate.VANISHED.value]))
        .group_by(files.c.fate, files.c.reason_code)
        .order_by(func.count().desc())
    )
    return Summary(
        fates={Fate(row[0]): int(row[1]) for row in fates},
        studies={str(row[0]): int(row[1]) for row in by_study},
        remarks=tuple(
            Remark(Fate(row.fate), row.reason_code, row.sentence, row.remedy, int(row.files)) for row in remarks
        ),
    )


def next_number(connection: Connection) -> int:
    """Return a number before which all files of the ledger are that are there now."""
    return int(connection.execute(select(func.max(files.c.file_id))).scalar() or 0) + 1


def _below(source: str, prefix: bytes, first: int) -> ColumnElement[bool]:
    return (
        (files.c.file_id >= first)
        & (files.c.source == source)
        & (func.substr(files.c.raw_name, 1, len(prefix)) == prefix)
    )
