"""A home of an earlier version: its audit is carried over as it is, verifies, and shows cuts from then on."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

from clinic_ai.store import audit, migrations
from clinic_ai.store.database import Database

ROWS = 5


def before(path: Path, count: int = ROWS) -> None:
    """Make a database as the version before wrote it, with some rows of the audit."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0004")
    engine.dispose()
    old = Database(path)
    with old.write() as connection:
        for number in range(count):
            audit.record(connection, actor="jürg", action="a.b", subject=str(number))
        assert audit.chain_break(connection) is None  # also before the first start of the new version
    old.close()


def test_the_log_is_carried_over_and_shows_cuts(tmp_path: Path) -> None:
    path = tmp_path / "clinic.db"
    before(path)
    database = Database(path)
    database.open()
    with database.write() as connection:
        assert audit.chain_break(connection) is None
        assert audit.highest(connection) == ROWS
        audit.record(connection, actor="a", action="b.c", subject="new")
        assert audit.chain_break(connection) is None
        connection.exec_driver_sql(f"DELETE FROM audit WHERE seq > {ROWS - 1}")
        found = audit.chain_break(connection)
        assert found is not None
        assert (found.seq, "cut off" in found.sentence) == (ROWS, True)
        audit.record(connection, actor="a", action="b.c", subject="newer")
        found = audit.chain_break(connection)
        assert found is not None
        assert "is missing" in found.sentence
    database.close()


def test_damaged_rows_are_carried_over_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "clinic.db"
    before(path)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE audit SET details = CAST(X'FB' AS TEXT) WHERE seq = 2")
    connection.execute("UPDATE audit SET actor = CAST(actor AS BLOB) WHERE seq = 4")
    connection.commit()
    connection.close()
    database = Database(path)
    database.open()
    with database.read() as c:
        found = audit.chain_break(c)
        assert found is not None
        assert found.seq == 2
        kinds = c.exec_driver_sql("SELECT hex(details), typeof(actor) FROM audit WHERE seq IN (2, 4)").all()
    assert [tuple(row) for row in kinds] == [("FB", "text"), ("7B7D", "blob")]
    database.close()
