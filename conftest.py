"""Does once what each of thousands of tests would do again: compile the sources, and make the tables; orders the tests.

The sources are compiled as installing does it: a child of the daemon writes no bytecode, and where
PYTHONDONTWRITEBYTECODE is set nothing does.
"""

from __future__ import annotations

import compileall
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import Engine

from clinic_ai.store import migrations
from clinic_ai.store.database import Database

# Tests run beside each other, and small networks are slower on two threads than on one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A busy machine is no failure: no example of Hypothesis has to be done within 0.2 s.
settings.register_profile("unhurried", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

_LONG = {"appliance", "integration", "plugins"}
SOURCES = ("clinic_ai", "plugins", "tests/support")


def pytest_configure(config: pytest.Config) -> None:
    """Compile what has changed, before the workers of xdist start; where nothing may be written it is only slower."""
    if not hasattr(config, "workerinput"):
        for folder in SOURCES:
            compileall.compile_dir(Path(__file__).parent / folder, quiet=2)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let every worker of xdist begin with tests that start daemons and children, so that none ends with a long one.

    Each begins with an equal part of the list and takes over from the ends of the others' parts when it is done.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers == 1:
        return
    by_file: dict[Path, list[pytest.Item]] = {}
    for item in items:
        by_file.setdefault(item.path, []).append(item)
    long = [path for path in by_file if _LONG.intersection(path.parts)]
    short = [item for path, found in by_file.items() if path not in long for item in found]
    part, ordered = math.ceil(len(items) / workers), []
    for worker in range(workers):
        first = [item for path in long[worker::workers] for item in by_file[path]]
        rest = max(0, part * (worker + 1) - len(ordered) - len(first))
        ordered += [*first, *short[:rest]]
        del short[:rest]
    items[:] = [*ordered, *short]


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
