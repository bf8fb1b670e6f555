"""Rows as the file has them: whatever a disk or a hand made of a column, it can be read, and is not taken for whole.

The ordinary way stops at text that is no UTF-8, and takes a BLOB in a column of text for another kind of object.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, LargeBinary, Row, Select, Table, case, cast, func, select, type_coerce
from sqlalchemy.types import NullType


@dataclass(frozen=True)
class Value:
    """What stands in one column of a row: SQLite's name of its type, and its bytes or number."""

    kind: str
    content: bytes | int | float | None

    def text(self) -> str | None:
        """Return the text, None if what stands there is none."""
        if self.kind != "text" or not isinstance(self.content, bytes):
            return None
        try:
            return self.content.decode()
        except UnicodeDecodeError:
            return None

    def shown(self) -> str:
        """Return something readable in any case; never compare it."""
        return self.content.decode(errors="backslashreplace") if isinstance(self.content, bytes) else str(self.content)


def raw(table: Table, *names: str) -> Select[Any]:
    """Return a query for these columns, all if none is named, to be read with ``values``."""
    wanted: list[Any] = []
    for column in [table.c[name] for name in names] or list(table.c):
        wanted += [func.typeof(column), _content(column)]
    return select(*wanted).select_from(table)


def _content(column: Column[Any]) -> Any:
    kind = func.typeof(column)
    content = case((kind.in_(["text", "blob"]), cast(column, LargeBinary)), else_=column)
    return type_coerce(content, NullType())  # as the driver has it: numbers stay numbers


def values(row: Row[Any]) -> tuple[Value, ...]:
    """Return what stands in a row of a query made by ``raw``."""
    return tuple(Value(row[at], row[at + 1]) for at in range(0, len(row), 2))


def fingerprint(rows: Iterable[Row[Any]]) -> str:
    """Return the SHA-256 of rows of queries made by ``raw``; it changes with any bit of any column."""
    digest = hashlib.sha256()
    for row in rows:
        for value in values(row):
            digest.update(repr((value.kind, value.content)).encode())
        digest.update(b"\n")
    return digest.hexdigest()


def texts(rows: Iterable[Row[Any]]) -> Iterator[tuple[str | None, ...]]:
    """Yield rows of a query made by ``raw`` as texts; None for what is none."""
    for row in rows:
        yield tuple(value.text() for value in values(row))
