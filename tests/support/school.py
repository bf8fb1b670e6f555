"""The training rooms of one daemon: a home, SQLite, a registry and runs of the tiny plugin; children are real."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import tiny_learner
from copies import open_deidentifier

from clinic_ai.contract import PluginManifest
from clinic_ai.guard.client import Guard
from clinic_ai.guard.packs import shipped_pack
from clinic_ai.home import Home
from clinic_ai.processes import Crew
from clinic_ai.settings import Settings
from clinic_ai.store.database import Database
from clinic_ai.training.gate import Gate
from clinic_ai.training.promotion import Promotions
from clinic_ai.training.registry import Registry
from clinic_ai.training.runs import Runs


@dataclass
class School:
    """One daemon's training rooms; with a ``guard``, what is trained is examined."""

    home: Home
    database: Database
    manifests: dict[str, PluginManifest]
    crew: Crew
    registry: Registry
    runs: Runs
    promotions: Promotions
    gate: Gate | None = None
    guard: Guard | None = None

    def in_use(self) -> list[str]:
        """Return what is active, as slot:version."""
        return [f"{ref.slot}:{ref.version}" for ref in self.registry.active("tiny")]

    def close(self) -> None:
        self.runs.close()
        if self.guard is not None:
            self.guard.close()
        self.crew.close()
        self.database.close()


def tiny_png(text: str, comment: str = "") -> bytes:
    """Return a grey PNG of one row whose pixels are the bytes of ``text``, with a comment beside them."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I4s", len(body), kind) + body + struct.pack(">I", zlib.crc32(kind + body))

    row = text.encode()
    beside = chunk(b"tEXt", b"Comment\0" + comment.encode("latin-1")) if comment else b""
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", len(row), 1, 8, 0, 0, 0, 0))
        + beside
        + chunk(b"IDAT", zlib.compress(b"\0" + row))
        + chunk(b"IEND", b"")
    )


def open_school(
    home: Home, manifest: PluginManifest | None = None, settings: Settings | None = None, *, examining: bool = False
) -> School:
    """Open the rooms as a daemon would; the gate, which needs a guard, only if it is asked for."""
    manifest, settings = manifest or tiny_learner.manifest(), settings or Settings()
    manifests, crew, database = {manifest.name: manifest}, Crew(), Database(home.database)
    database.open()
    registry = Registry(home, database, manifests, crew)
    guard, gate = None, None
    if examining:
        guard = Guard(crew, shipped_pack("default"), archive=home.state / "policies")
        guard.load()
        gate = Gate(home, database, registry, crew, guard, lambda: settings)
    runs = Runs(home, database, registry, manifests, crew, settings, open_deidentifier(home, database, crew), gate)
    promotions = gate.promotions if gate is not None else Promotions(database, registry, lambda: settings)
    return School(home, database, manifests, crew, registry, runs, promotions, gate, guard)
