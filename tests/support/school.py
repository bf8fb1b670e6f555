"""The training rooms of one daemon: a home, SQLite, a registry and runs of the tiny plugin; children are real."""

from __future__ import annotations

from dataclasses import dataclass

import tiny_learner

from clinic_ai.contract import PluginManifest
from clinic_ai.home import Home
from clinic_ai.processes import Crew
from clinic_ai.settings import Settings
from clinic_ai.store.database import Database
from clinic_ai.training.registry import Registry
from clinic_ai.training.runs import Runs


@dataclass
class School:
    """One daemon's training rooms."""

    home: Home
    database: Database
    manifests: dict[str, PluginManifest]
    crew: Crew
    registry: Registry
    runs: Runs

    def close(self) -> None:
        self.runs.close()
        self.crew.close()
        self.database.close()


def open_school(home: Home, manifest: PluginManifest | None = None) -> School:
    """Open the rooms as a daemon would."""
    manifest = manifest or tiny_learner.manifest()
    manifests, crew, database = {manifest.name: manifest}, Crew(), Database(home.database)
    database.open()
    registry = Registry(home, database, manifests, crew)
    runs = Runs(home, database, registry, manifests, crew, Settings())
    return School(home, database, manifests, crew, registry, runs)
