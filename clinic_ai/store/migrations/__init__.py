"""Schema changes, in order, run from code so that they work from a wheel.

Alembic is imported only when the revision in the file differs from the newest one: it costs memory that an
idle daemon should not hold.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Engine, inspect, text

from clinic_ai.errors import HomeError

HEAD = "0008"
"""Newest revision; a test checks it against the files in ``versions``."""


def upgrade(engine: Engine) -> None:
    """Bring the schema to HEAD. Raise HomeError if the file was written by a newer version."""
    found = _revision(engine)
    if found == HEAD:
        return
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise HomeError(
            f"This home was made by a newer version of clinic-ai (database revision {found}).",
            remedy="Install that version again, or restore a backup made before the upgrade.",
        )
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _revision(engine: Engine) -> str | None:
    with engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
