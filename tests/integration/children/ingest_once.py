"""Ingests what lies in a home until all is closed; SIGKILLs itself just before its n-th lasting step, if told to.

Usage: ingest_once.py HOME N. Steps are file-system changes, syncs, and database commits before and after; with
N = 0 it runs to the end and prints how many there were.
"""

import sys
import time
from pathlib import Path

from intake_site import Site
from reaper import Reaper


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
