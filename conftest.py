"""Does once what each of thousands of tests would do again: compile the sources, and make the tables.

The sources are compiled as installing does it: a child of the daemon writes no bytecode, and where
PYTHONDONTWRITEBYTECODE is set nothing does.
"""

from __future__ import annotations

import compileall
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from clinic_ai.store import migrations
from clinic_ai.store.database import Database

SOURCES = ("clinic_ai", "plugins", "tests/support")


def pytest_configure(config: pytest.Config) -> None:
    """Compile what has changed, before the workers of xdist start; where nothing may be written it is only slower."""
    if not hasattr(config, "workerinput"):
        for folder in SOURCES:
            compileall.compile_dir(Path(__file__).parent / folder, quiet=2)


@pytest.fixture(scope="session", autouse=True)
def _tables_made_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let a database that a test makes in its own process begin as a copy of one that the migrations made.

    It is opened as ever; daemons, in processes of their own, make theirs themselves.
    """
    made = tmp_path_factory.mktemp("tables") / "clinic.db"
    database = Database(made)
    database.open()
    database.close()
    upgrade = migrations.upgrade

    def upgrade_copy(engine: Engine) -> None:
        place = Path(str(engine.url.database))
        if not place.exists():
            shutil.copyfile(made, place)
        upgrade(engine)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(migrations, "upgrade", upgrade_copy)
        yield
