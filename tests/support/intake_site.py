"""A home with a real intake over it: real files, real SQLite, real parser child, no daemon."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from clinic_ai.domain import Fate, Study
from clinic_ai.home import Home, init_home
from clinic_ai.ingest.intake import Intake
from clinic_ai.processes import Crew
from clinic_ai.settings import IngestSettings, Settings
from clinic_ai.store import ledger, studies
from clinic_ai.store.database import Database
from clinic_ai.store.ledger import LedgerEntry
from clinic_ai.store.objects import ObjectStore


class Site:
    """One home and its intake; ``ingest`` are keys of ``[ingest]`` that differ from quick ones."""

    def __init__(
        self, path: Path, crew: Crew | None = None, *, settings: Settings | None = None, **ingest: object
    ) -> None:
        self.home: Home = init_home(path) if not path.exists() else Home(path)
        quick = {"settle_s": 0.05, "quiet_period_s": 0.1, "gap_wait_s": 0.1, "rescan_s": 0.1}
        self.settings = settings or Settings(ingest=IngestSettings.model_validate({**quick, **ingest}))
        self.database = Database(self.home.database)
        self.database.open()
        self.objects = ObjectStore(self.home.objects)
        self.crew = crew or Crew()
        self.closed = 0
        self.intake = Intake(
            home=self.home,
            settings=lambda: self.settings,
            database=self.database,
            objects=self.objects,
            crew=self.crew,
            on_closed=self._count,
        )
        self.intake.recover()

    def _count(self) -> None:
        self.closed += 1

    def cycle_until(self, done: Callable[[], bool], timeout_s: float = 60.0) -> None:
        """Make passes until ``done``; fail the test if that never comes true."""
        deadline = time.monotonic() + timeout_s
        while not done():
            if time.monotonic() > deadline:
                pytest.fail(f"not done within {timeout_s} s: {self.fates()}")
            self.intake.cycle()

    def settle(self, files: int) -> dict[str, LedgerEntry]:
        """Make passes until ``files`` files have their fate and all studies are closed; return them by name."""
        self.cycle_until(lambda: len(self.files()) >= files and not self.receiving())
        return {row.name: row for row in self.files()}

    def files(self) -> list[LedgerEntry]:
        with self.database.read() as connection:
            return [row for row in ledger.list_files(connection, limit=10_000) if not row.fate.pending]

    def fates(self) -> dict[Fate, int]:
        with self.database.read() as connection:
            return {fate: count for fate, count in ledger.counts(connection).items() if count}

    def studies(self) -> list[Study]:
        with self.database.read() as connection:
            return studies.list_studies(connection, limit=10_000)

    def receiving(self) -> int:
        return sum(study.state == "RECEIVING" for study in self.studies())

    def close(self) -> None:
        self.intake.close()
        self.crew.close()
        self.database.close()
