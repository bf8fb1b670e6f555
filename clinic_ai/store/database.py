"""The connection to SQLite: WAL, ``synchronous=FULL``, writes that BEGIN IMMEDIATE.

Only the process that holds the home's lock opens the database. ``synchronous=NORMAL`` may lose committed
transactions on power loss, and a deferred transaction that reads before it writes fails "locked" at once
whatever the time-out: hence both settings.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DatabaseError

from clinic_ai.errors import HomeError

Damaged = DatabaseError
"""Raised where the file cannot be read."""
BUSY_TIMEOUT_S = 30
STATEMENTS = 32
"""Prepared statements that one connection keeps, at about 13 kB each; preparing one takes a tenth of a millisecond.
With sqlite3's own 128 the daemon grew for hours until all connections had all of its statements."""
CACHE_KIB = 1024
"""What one connection keeps of the database. The kernel keeps the whole of it anyway, once and not eight times."""


class Database:
    """The appliance's database. ``read`` and ``write`` give a connection inside one transaction."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._engine: Engine = create_engine(
            f"sqlite:///{path}",
            connect_args={
                "timeout": BUSY_TIMEOUT_S,
                "check_same_thread": False,
                "cached_statements": STATEMENTS,
            },
            hide_parameters=True,  # an error message must not carry a patient's name
            pool_size=4,  # each connection fills caches of its own: keep few of them
            max_overflow=12,
            pool_use_lifo=True,
        )
        event.listen(self._engine, "connect", _configure)
        event.listen(self._engine, "begin", _begin)

    def open(self) -> None:
        """Create or migrate the schema. Raise HomeError if the file is from a newer version or no database."""
        from clinic_ai.store.migrations import upgrade

        try:
            upgrade(self._engine)
        except DatabaseError as error:
            raise HomeError(
                f"The database {self.path} cannot be used: {error.orig}.",
                remedy="Check the disk; if the file is damaged, restore the newest file of backups/.",
            ) from error

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a connection in a read transaction: a consistent picture, and no waiting for writers."""
        with self._engine.connect().execution_options(clinic_write=False) as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Give a connection in a write transaction, committed and on the disk when the block ends."""
        with self._engine.connect().execution_options(clinic_write=True) as connection, connection.begin():
            yield connection

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def _configure(connection: sqlite3.Connection, _record: object) -> None:
    # SQLAlchemy's own BEGIN handling is off; _begin says which kind each transaction is.
    connection.isolation_level = None
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "trusted_schema=OFF",
        f"busy_timeout={BUSY_TIMEOUT_S * 1000}",
        f"cache_size=-{CACHE_KIB}",
        "journal_size_limit=33554432",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    write = connection.get_execution_options().get("clinic_write", True)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN DEFERRED")


def integrity_problems(database: Database) -> list[str]:
    """Return what SQLite's own quick check finds, nothing if all is well."""
    with database.read() as connection:
        rows = connection.execute(text("PRAGMA quick_check")).scalars().all()
    return [str(row) for row in rows if row != "ok"]
