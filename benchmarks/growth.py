"""Memory of the daemon and of its parser while 100,000 files come in.

    python benchmarks/growth.py [--files 100000] [--directory DIR]

Small CT slices, 250 a study and folder, are dropped into the inbox of a real daemon, ten thousand at a time. Each time
all of them are stored, resident memory is read. A straight line through the daemon's readings after the first two says
how much it grows; the budget is 10 MB over 100,000 files. No plugin takes the studies: this is about ingest.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import tempfile
import time
from itertools import islice
from pathlib import Path

import psutil
from parts.accounts import Books
from parts.daemons import started, stopped
from parts.slices import PER_STUDY, ct_slices
from parts.traffic import children_of

from clinic_ai.home import Home, init_home

BLOCK = 10_000
SIDE = 16
WARM_UP_BLOCKS = 2
BUDGET_MB = 10.0
"""Growth over 100,000 files."""
SETTINGS = """
[[inbox]]
name = "inbox"
path = "inbox"
settle_s = 0.2

[ingest]
rescan_s = 0.5

[routing]
use_claims = false
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--directory", type=Path, default=None, help="where to work; the disk to be measured")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        home = init_home(Path(name) / "home")
        home.clinic_toml.write_text(SETTINGS)
        with (home.logs / "daemon.log").open("wb") as log:
            daemon = started(home, log.fileno())
            try:
                readings = _feed(home, daemon, options.files)
            finally:
                daemon.send_signal(signal.SIGTERM)
                stopped(daemon)
    used = readings[min(WARM_UP_BLOCKS, max(0, len(readings) - 2)) :]
    if len(used) < 2:
        return  # too few files for a line
    slope = statistics.linear_regression([files for files, _ in used], [rss for _, rss in used]).slope
    growth = slope * 100_000 / 1e6
    verdict = "kept" if growth <= BUDGET_MB else "MISSED"
    print(
        f"daemon: {growth:+.1f} MB over 100,000 files, peak {max(rss for _, rss in readings) / 1e6:.1f} MB", end="   "
    )
    print(f"budget {BUDGET_MB:.0f} MB: {verdict}")


def _feed(home: Home, daemon: psutil.Process, files: int) -> list[tuple[int, int]]:
    """Drop all files block by block; return how many were stored and the daemon's RSS in bytes after each."""
    books, readings, slices = Books(home), [], ct_slices(files, side=SIDE)
    print(f"{'files':>8}{'files/s':>9}{'CPU ms/file':>13}{'daemon RSS':>12}{'PSS':>9}{'parser RSS':>12}   MB")
    print(f"{0:8}{'':22}{_figures(daemon)}", flush=True)
    for block in range(-(-files // BLOCK)):
        count = min(BLOCK, files - block * BLOCK)
        staging = home.path / f"block {block}"
        staging.mkdir()
        for number, content in enumerate(islice(slices, count)):
            folder = staging / str(number // PER_STUDY)
            folder.mkdir(exist_ok=True)
            (folder / f"{number}.dcm").write_bytes(content)
        began, used = time.perf_counter(), _cpu(daemon)
        staging.rename(home.inbox / staging.name)
        done = block * BLOCK + count
        while books.number("SELECT count(*) FROM instances") < done:
            if daemon.poll() is not None:
                raise SystemExit("The daemon ended while files came in.")
            time.sleep(0.2)
        seconds, spent = time.perf_counter() - began, _cpu(daemon) - used
        print(f"{done:8}{count / seconds:9.0f}{1000 * spent / count:13.2f}{_figures(daemon)}", flush=True)
        readings.append((done, daemon.memory_info().rss))
    return readings


def _cpu(daemon: psutil.Process) -> float:
    """Return the CPU seconds of the daemon and of its children, those that ended included."""
    living = (child for kind in children_of(daemon).values() for child in kind)
    return sum(daemon.cpu_times()[:4]) + sum(sum(child.cpu_times()[:2]) for child in living)


def _figures(daemon: psutil.Process) -> str:
    memory = daemon.memory_full_info()
    parser = sum(child.memory_info().rss for child in children_of(daemon).get("parser", []))
    return f"{memory.rss / 1e6:12.1f}{memory.pss / 1e6:9.1f}{parser / 1e6:12.1f}"


if __name__ == "__main__":
    main()
