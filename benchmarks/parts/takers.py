"""Ways of taking files from a folder, each measured from the first byte to the last sync or commit."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import psutil

from clinic_ai.domain import Fate
from clinic_ai.home import init_home
from clinic_ai.ingest.intake import Intake
from clinic_ai.processes import Crew
from clinic_ai.settings import IngestSettings, Settings
from clinic_ai.store import ledger
from clinic_ai.store.database import Database
from clinic_ai.store.objects import ObjectStore, fsync_directory
from parts.network import WARM_UP, Run

SETTLE_S = 0.05


def write_and_sync(place: Path, files: list[Path]) -> Run:
    """Measure new files with these bytes, each synced."""
    contents = [path.read_bytes() for path in files[WARM_UP:]]
    watch = _Stopwatch()
    for index, content in enumerate(contents):
        with (place / str(index)).open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    fsync_directory(place)
    return watch.run()


def rename_and_sync(place: Path, files: list[Path]) -> Run:
    """Measure files moved to another folder, each synced."""
    dropped, target = _drop(place / "from", files[WARM_UP:]), place / "to"
    target.mkdir()
    watch = _Stopwatch()
    for path in dropped:
        path.rename(target / path.name)
        descriptor = os.open(target / path.name, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    fsync_directory(target)
    return watch.run()


def folder(place: Path, files: list[Path]) -> Run:
    """Measure the appliance from the drop into its inbox to the commit that stores the last file."""
    home = init_home(place / "h")
    settings = Settings(ingest=IngestSettings(settle_s=SETTLE_S, rescan_s=0.1, quiet_period_s=60))
    database, crew = Database(home.database), Crew()
    database.open()
    intake = Intake(
        home=home,
        settings=lambda: settings,
        database=database,
        objects=ObjectStore(home.objects),
        crew=crew,
        on_closed=lambda: None,
    )

    def stored(objects: int) -> None:
        while True:
            intake.cycle()
            with database.read() as connection:
                fates = ledger.counts(connection)
            if fates[Fate.STORED] == objects:
                return
            if fates[Fate.QUARANTINED] or fates[Fate.DUPLICATE]:
                raise SystemExit(f"not all slices were stored: {fates}")
            time.sleep(SETTLE_S / 2)

    try:
        intake.recover()
        _drop(home.inbox / "warm-up", files[:WARM_UP])
        stored(WARM_UP)
        _drop(home.path / "scan", files[WARM_UP:])
        watch = _Stopwatch(crew)
        (home.path / "scan").rename(home.inbox / "scan")
        stored(len(files))
        return watch.run()
    finally:
        intake.close()
        crew.close()
        database.close()


class _Stopwatch:
    """Wall time, and CPU time of this process and of the children of ``crew``."""

    def __init__(self, crew: Crew | None = None) -> None:
        self._crew = crew
        self._used, self._began = self._cpu(), time.perf_counter()

    def run(self) -> Run:
        seconds = time.perf_counter() - self._began
        return Run(seconds, seconds, self._cpu() - self._used)

    def _cpu(self) -> float:
        children = [psutil.Process(child.pid) for child in self._crew.living()] if self._crew else []
        return sum(sum(process.cpu_times()[:2]) for process in (psutil.Process(), *children))


def _drop(place: Path, files: list[Path]) -> list[Path]:
    """Copy files into a new folder; they are not synced, as nobody syncs who drops files."""
    place.mkdir()
    return [Path(shutil.copyfile(path, place / path.name)) for path in files]
