"""Ingests what lies in a home until all is closed; SIGKILLs itself just before its n-th lasting step, if told to.

Usage: ingest_once.py HOME N. Steps are file-system changes, syncs, and database commits before and after; with
N = 0 it runs to the end and prints how many there were.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from intake_site import Site

from clinic_ai.store.database import Database

STEPS = {"os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.chmod"}


class Reaper:
    def __init__(self, kill_at: int) -> None:
        self.kill_at = kill_at
        self.steps = 0

    def step(self) -> None:
        self.steps += 1
        if self.steps == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def install(self) -> None:
        def hook(event: str, _arguments: Any) -> None:
            if event in STEPS:
                self.step()

        sys.addaudithook(hook)
        sync, write = os.fsync, Database.write

        def fsync(descriptor: int) -> None:
            self.step()
            sync(descriptor)

        @contextmanager
        def counted(database: Database) -> Iterator[Any]:
            with write(database) as connection:
                yield connection
                self.step()  # everything is said and nothing committed
            self.step()

        os.fsync = fsync
        Database.write = counted  # type: ignore[method-assign]


def main(home: Path, kill_at: int) -> None:
    site = Site(home)  # recovers
    reaper = Reaper(kill_at)
    reaper.install()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        site.intake.cycle()
        if not any(path.is_file() for path in site.home.inbox.rglob("*")) and not site.receiving():
            break
    else:
        sys.exit("not done in time")
    print(reaper.steps)
    site.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
