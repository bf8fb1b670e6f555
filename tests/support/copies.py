"""De-identified copies in a test: the real child, in a home made by the test."""

from __future__ import annotations

from clinic_ai.deidentification import Deidentifier
from clinic_ai.home import Home
from clinic_ai.processes import Crew
from clinic_ai.settings import Settings
from clinic_ai.store.database import Database
from clinic_ai.store.objects import ObjectStore


def open_deidentifier(home: Home, database: Database, crew: Crew) -> Deidentifier:
    """Return a deidentifier as the daemon has it; the crew ends its child."""
    return Deidentifier(
        crew=crew,
        database=database,
        objects=ObjectStore(home.objects),
        directory=home.jobs,
        max_pixels=lambda: Settings().ingest.max_pixels,
    )
