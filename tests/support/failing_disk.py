"""Takes in what comes on a disk that fails now and then; nobody restarts it. Then tells what is there.

``python -m failing_disk full HOME WHERE SIZES SEED`` in a mount namespace of its own: WHERE is what lies on a small
file system (``home``, ``quarantine`` or ``state``); before each of the SIZES (KiB, with commas) files are dropped and
all but so much of it is filled; when passes have failed, it is emptied again.

``python -m failing_disk calls HOME`` for a process whose system calls somebody lets fail (strace): takes in what a
``prepare``d home has.

``python -m failing_disk rights HOME SEED`` for somebody whom permissions concern: folders and files are locked and
unlocked while things are dropped.

``python -m failing_disk mounts HOME ROUNDS SEED`` in a mount namespace: the inbox is a share that is taken away while
files are in flight and its server goes on receiving, and comes back.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from dropper import Dropper
from intake_site import Site
from sqlalchemy.exc import DatabaseError
from whole import QUARANTINED, Drop, Drops, faults

from clinic_ai.errors import ClinicError
from clinic_ai.home import Home, init_home
from clinic_ai.ingest import lookout
from clinic_ai.settings import DiskSettings, IngestSettings, Settings
from clinic_ai.store import alerts

PATIENCE_S = 600.0
MIB = 1 << 20
SETTINGS = Settings(
    ingest=IngestSettings.model_validate(
        {"settle_s": 0.05, "quiet_period_s": 0.1, "rescan_s": 0.1, "adaptive_quiet": False}
    ),
    disk=DiskSettings(reserve_mb=0),  # so that the disk itself says no
)


class Clinic:
    """An ingest whose passes may fail; what they raised is counted."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.drops = Drops(home.path / "dropped")
        self.failed: Counter[str] = Counter()
        self.site = self._open()

    def _open(self) -> Site:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return Site(self.home.path, settings=SETTINGS)
            except (ClinicError, OSError, DatabaseError) as error:  # systemd starts it again
                self.failed[f"start: {type(error).__name__}"] += 1
                if time.monotonic() > deadline:
                    raise

    def passes(self, done: Callable[[], bool]) -> None:
        """Make passes until ``done``, whatever they raise that a daemon survives."""
        deadline = time.monotonic() + PATIENCE_S
        while not done():
            if time.monotonic() > deadline:
                raise TimeoutError(f"it never comes to its end: {self.failed}, {self.site.fates()}")
            try:
                self.site.intake.cycle()
            except (ClinicError, OSError, DatabaseError) as error:
                self.failed[type(error).__name__] += 1
            time.sleep(0.01)  # a daemon sleeps between passes; one that spins takes the processor from all others

    def idle(self) -> bool:
        """Return whether nothing is left to do; not, if that cannot be read."""
        try:
            pending = any(fate.pending for fate in self.site.fates())
            lying = any(path.is_file() for path in self.home.inbox.rglob("*"))
            return not (pending or lying or self.site.receiving())
        except (OSError, DatabaseError):
            return False

    def cycled(self, times: int) -> bool:
        """Make so many passes, none of which may fail; return True."""
        for _ in range(times):
            self.site.intake.cycle()
        return True

    def reasons(self) -> set[str]:
        """Return the codes of what became of files so far."""
        return {row.reason_code for row in self.site.files()} - {""}

    def alerts(self) -> list[str]:
        """Return the codes of the alerts that are open."""
        with self.site.database.read() as connection:
            return [alert.code for alert in alerts.open_alerts(connection)]

    def tell(self, **more: object) -> None:
        """Print what is there."""
        self.site.close()
        dropped = self.drops.all()
        told = {"failed": self.failed, "dropped": len(dropped), **more}
        print(json.dumps({**told, "faults": faults(self.home, dropped, delivered=False)}))


# ---------------------------------------------------------------- a full disk


class SmallDisk:
    """A file system that can be filled to the last block."""

    def __init__(self, place: Path, size: int) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "small", str(place)], check=True)
        self.place = place
        self._filler = place / ".filler"

    def fill(self, left: int) -> None:
        """Leave only so many bytes."""
        status = os.statvfs(self.place)
        with self._filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, status.f_bavail * status.f_frsize - left))

    def empty(self) -> None:
        """Give all of it back."""
        self._filler.unlink()


def full(path: Path, where: str, sizes: list[int], seed: int) -> None:
    path.mkdir()
    small = None
    if where == "home":
        small = SmallDisk(path, 64 * MIB)
    home = init_home(path)
    if small is None:
        small = SmallDisk(getattr(home, where), 64 * MIB)
        if where == "state":
            init_home(path)
    clinic = Clinic(home)
    dropper = Dropper([home.inbox], path / "aside", clinic.drops, seed)
    met = 0
    for left in sizes:
        dropper.burst()
        small.fill(left << 10)
        before = sum(clinic.failed.values())
        clinic.passes(lambda n=before: clinic.idle() or sum(clinic.failed.values()) >= n + 3)
        met += sum(clinic.failed.values()) > before
        small.empty()
        clinic.passes(clinic.idle)
    clinic.tell(met=met)


# ---------------------------------------------------------------- calls that fail


def prepare(path: Path, seed: int) -> None:
    """Make a home with files in its inbox, while nothing fails yet."""
    home = init_home(path)
    Site(path, settings=SETTINGS).close()
    Dropper([home.inbox], path / "aside", Drops(path / "dropped"), seed).burst()


def calls(path: Path) -> None:
    """Take in what a ``prepare``d home has."""
    lookout.TRY_AGAIN_S = 0.2
    clinic = Clinic(Home(path))
    clinic.passes(clinic.idle)
    clinic.tell()


# ---------------------------------------------------------------- rights that are missing


def rights(path: Path, seed: int) -> None:
    """Lock one thing after the other, drop, look, unlock, and let all of it be taken."""
    lookout.TRY_AGAIN_S = 0.2
    home = init_home(path)
    clinic = Clinic(home)
    dropper = Dropper([home.inbox], path / "aside", clinic.drops, seed)
    seen: dict[str, list[str]] = {}

    def locked(name: str, place: Path, until: Callable[[], bool]) -> None:
        mode = place.stat().st_mode
        place.chmod(0o500 if place.is_dir() and name != "closed folder" else 0)
        before = Counter(clinic.failed)
        clinic.passes(lambda: until() or sum((clinic.failed - before).values()) >= 3)
        seen[name] = [*clinic.reasons(), *(clinic.failed - before)]
        place.chmod(mode)
        clinic.passes(clinic.idle)

    inner = home.inbox / "folder 1"
    inner.mkdir()
    dropper.burst()
    locked("inbox that cannot be written", home.inbox, lambda: "cannot_take" in clinic.reasons())
    dropper.burst()
    for file in (path for path in home.inbox.rglob("*") if path.is_file()):
        file.chmod(0)
    clinic.passes(lambda: "cannot_take" in clinic.reasons())
    for file in (path for path in home.inbox.rglob("*") if path.is_file()):
        file.chmod(0o600)
    clinic.passes(clinic.idle)
    content = inner / "in a closed folder.txt"
    clinic.drops.note(Drop(f"folder 1/{content.name}", hashlib.sha256(b"no scan").hexdigest(), fates=QUARANTINED))
    content.write_bytes(b"no scan")
    locked("closed folder", inner, lambda: clinic.cycled(3))
    for name in ("spool", "objects", "quarantine", "state"):
        dropper.burst()
        known = len(clinic.site.files())
        locked(name, getattr(home, name), lambda n=known: clinic.idle() or len(clinic.site.files()) > n)
    clinic.tell(seen=seen)


# ---------------------------------------------------------------- a share that goes away


def mounts(path: Path, rounds: int, seed: int) -> None:
    """Take the share away and bring it back, again and again, while its server goes on receiving."""
    dice = random.Random(seed)
    home = init_home(path)
    server = path.with_name(f"{path.name} server")
    server.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "server", str(server)], check=True)
    subprocess.run(["mount", "--bind", str(server), str(home.inbox)], check=True)
    clinic = Clinic(home)
    dropper = Dropper([server], path / "aside", clinic.drops, seed)
    offline = []
    for _ in range(rounds):
        dropper.burst()
        for _ in range(dice.randint(0, 6)):  # in flight: seen, settling, taken, being filed
            clinic.cycled(1)
        subprocess.run(["umount", "--lazy", str(home.inbox)], check=True)
        dropper.burst()
        clinic.passes(lambda: "inbox_offline" in clinic.alerts())
        offline.append(clinic.alerts().count("inbox_offline"))
        subprocess.run(["mount", "--bind", str(server), str(home.inbox)], check=True)
        clinic.passes(lambda: "inbox_offline" not in clinic.alerts())
    clinic.passes(clinic.idle)
    clinic.tell(offline=offline)


if __name__ == "__main__":
    verb, place, *words = sys.argv[1:]
    if verb == "full":
        full(Path(place), words[0], [int(size) for size in words[1].split(",")], int(words[2]))
    elif verb == "rights":
        rights(Path(place), int(words[0]))
    elif verb == "mounts":
        mounts(Path(place), int(words[0]), int(words[1]))
    else:
        calls(Path(place))
