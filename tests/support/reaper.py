"""Counts the lasting steps of its own process (changes of the file system, syncs, commits) and SIGKILLs it at one."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from clinic_ai.store.database import Database

STEPS = {"os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.chmod"}


class Reaper:
    """Dies just before step ``kill_at``, never if that is 0."""

    def __init__(self, kill_at: int) -> None:
        self.kill_at = kill_at
        self.steps = 0

    def step(self) -> None:
        """Count one step, or die of it."""
        self.steps += 1
        if self.steps == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def install(self) -> None:
        """Wrap the process."""

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
