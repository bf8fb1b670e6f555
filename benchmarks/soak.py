"""A steady trickle into a real daemon for an hour, to see that nothing grows and nothing gets lost.

    python benchmarks/soak.py [--seconds 3600] [--csv FILE] [--directory DIR] [--seed 1]

A daemon runs in a home of its own. Into it go: CT studies and PNG files copied, written slowly and renamed into the
inbox; studies by C-STORE, some broken off and sent again; duplicates, late slices, other bytes under a known UID, junk,
hostile files, links. Clients ask, follow the events and hang up; the settings are reloaded and children are killed.

Every 10 s memory, threads and open files of the daemon and of each child are read, and the size of database, WAL and
home; they go into the CSV. At the end a straight line is laid through each of them after a warm-up, and the sender's
notes are held against ledger, studies and outbox. The exit status is 0 if nothing grew by more than its limit, which
stands in the table, and every file has its fate and every study its result.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import signal
import socket
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
from parts.accounts import Books
from parts.daemons import started, stopped
from parts.gauges import Line, Reading, line, read_all
from parts.traffic import AE_TITLE, CALLING, CHILDREN, PEER, Traffic

import clinic_ai
from clinic_ai.home import Home, init_home

SAMPLE_S = 10.0
LONGEST_WARM_UP_S = 900.0
CHILD_SETTLE_S = 60.0
DRAIN_S = 300.0
LIMITS = {
    ("daemon", "rss_bytes"): 6e6,
    ("daemon", "pss_bytes"): 6e6,
    ("daemon", "threads"): 2,
    ("daemon", "fds"): 2,
    ("children", "count"): 1,
    **{(child, "rss_bytes"): 15e6 for child in CHILDREN},
    **{(child, "threads"): 2 for child in CHILDREN},
    **{(child, "fds"): 2 for child in CHILDREN},
}
"""By how much the fitted line may rise over the measured time."""
WAL_LIMIT = 64e6
"""Bytes the write-ahead log may have at its largest: twice of what SQLite truncates it to."""
SETTINGS = f"""\
[clinic]
name = "Soak"

[[inbox]]
name = "inbox"
path = "inbox"
settle_s = 0.5

[ingest]
rescan_s = 1.0
quiet_period_s = 3.0

[execution]
backoff_s = [1.0]
max_attempts = 10
max_restarts = 100

[network]
enabled = true
ae_title = "{AE_TITLE}"
bind = "127.0.0.1"
port = PORT

[[network.peer]]
name = "{PEER}"
ae_title = "{CALLING}"
host = "127.0.0.1"
"""


def main() -> None:
    """Soak, print, and exit with what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--csv", type=Path, default=Path("build/soak.csv"), help="where the readings go")
    parser.add_argument("--directory", type=Path, default=None, help="where to work; removed if all was well")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="soak-", dir=options.directory))
    home, port = _home(root / "home")
    print(f"clinic-ai of {Path(clinic_ai.__file__).parent}, home {home.path}, for {options.seconds:.0f} s", flush=True)
    with (root / "daemon.log").open("wb") as log:
        daemon = started(home, log.fileno())
        traffic = Traffic(home, daemon, port, options.seed)
        try:
            readings = _soak(traffic, daemon, home, options.seconds)
            unfinished = _drain(Books(home), daemon)
            daemon.send_signal(signal.SIGTERM)
            status = stopped(daemon)
        finally:
            if daemon.poll() is None:
                daemon.kill()
                daemon.wait()
    options.csv.parent.mkdir(parents=True, exist_ok=True)
    _save(options.csv, readings)
    grown = _report(readings, options.seconds)
    problems = [*([unfinished] if unfinished else []), *Books(home).problems(traffic.sent)]
    if status:
        problems.append(f"The daemon ended with status {status}.")
    _tell(traffic, home, problems)
    print(f"readings: {options.csv}")
    if problems or grown:
        raise SystemExit(f"NOT WELL; home and log are kept in {root}")
    shutil.rmtree(root)
    print("Nothing grew, nothing is lost.")


def _home(path: Path) -> tuple[Home, int]:
    home = init_home(path)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    home.clinic_toml.write_text(SETTINGS.replace("PORT", str(port)))
    return home, port


def _soak(traffic: Traffic, daemon: psutil.Popen, home: Home, seconds: float) -> list[Reading]:
    """Let the traffic run, and read the gauges; return the readings."""
    stop, began, readings = threading.Event(), time.monotonic(), []
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(traffic.run, stop)
        try:
            while (now := time.monotonic() - began) < seconds:
                if daemon.poll() is not None:
                    raise SystemExit(f"The daemon ended after {now:.0f} s; {home.path.parent}/daemon.log says why.")
                if running.done():
                    break  # it broke, and says why below
                readings += read_all(now, daemon, home)
                _show(readings, now)
                time.sleep(max(0.0, SAMPLE_S - (time.monotonic() - began - now)))
        finally:
            stop.set()
        running.result()
    return readings


def _show(readings: list[Reading], now: float) -> None:
    """Print a line once a minute."""
    if int(now) % 60 < SAMPLE_S:
        newest = {r.measure: r.value for r in readings if r.what in {"daemon", "home"} and r.at_s == now}
        print(
            f"{now / 60:4.0f} min  daemon {newest.get('rss_bytes', 0) / 1e6:.1f} MB RSS, "
            f"{newest.get('threads', 0):.0f} threads, {newest.get('fds', 0):.0f} open files; "
            f"home {newest['all_bytes'] / 1e6:.0f} MB",
            flush=True,
        )


def _drain(books: Books, daemon: psutil.Popen) -> str:
    """Wait until everything that went in has ended; return what has not, in words."""
    deadline = time.monotonic() + DRAIN_S
    while (left := books.unfinished()) and time.monotonic() < deadline and daemon.poll() is None:
        time.sleep(1)
    return left


def _save(path: Path, readings: list[Reading]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("at_s", "what", "pid", "measure", "value"))
        writer.writerows((f"{r.at_s:.1f}", r.what, r.pid or "", r.measure, f"{r.value:.10g}") for r in readings)


# ---------------------------------------------------------------- telling


def _report(readings: list[Reading], seconds: float) -> bool:
    """Print a line for each thing that was read; return whether one grew by more than it may."""
    warm = min(LONGEST_WARM_UP_S, seconds / 4)
    print(f"\nafter a warm-up of {warm:.0f} s; growth by a straight line, ± its standard error; MB or counts")
    print(f"{'what':32}{'first':>9}{'last':>9}{'peak':>9}{'growth':>18}{'per hour':>10}{'limit':>8}")
    groups: dict[tuple[str, str], list[Reading]] = {}
    for reading in readings:
        if reading.at_s >= warm and reading.measure != "cpu_seconds":
            groups.setdefault((reading.what, reading.measure), []).append(reading)
    grown = False
    for key, members in sorted(groups.items()):
        found = line(members, settle_s=0.0 if key[0] in {"daemon", "home", "children"} else CHILD_SETTLE_S)
        if found is not None:
            grown = _row(key, found) or grown
    cpu = {r.pid: r.value for r in readings if r.measure == "cpu_seconds"}
    print(f"CPU: {sum(cpu.values()) / max(1.0, readings[-1].at_s):.2f} cores, daemon and children together")
    return grown


def _row(key: tuple[str, str], found: Line) -> bool:
    what, measure = key
    scale = 1e6 if measure.endswith("_bytes") else 1.0
    limit, bad = LIMITS.get(key), False
    if limit is not None:
        bad = found.growth > limit
    elif measure == "wal_bytes":
        bad = found.peak > WAL_LIMIT
    name = f"{what} {measure.removesuffix('_bytes')}"
    print(
        f"{name:31}",
        f"{found.first / scale:8.1f}{found.last / scale:9.1f}{found.peak / scale:9.1f}",
        f"{found.growth / scale:9.2f} ± {found.error / scale:5.2f}{found.per_hour / scale:10.2f}",
        f"{'' if limit is None else f'{limit / scale:g}':>7}{'  GREW' if bad else ''}",
    )
    return bad


def _tell(traffic: Traffic, home: Home, problems: list[str]) -> None:
    sent, books = traffic.sent, Books(home)
    fates = {row[0]: row[1] for row in books.rows("SELECT fate, count(*) FROM files GROUP BY fate")}
    states = {row[0]: row[1] for row in books.rows("SELECT state, count(*) FROM studies GROUP BY state")}
    print(f"done: {', '.join(f'{number} {name}' for name, number in sorted(sent.done.items()))}")
    print(f"killed: {', '.join(f'{number} {name}' for name, number in sorted(sent.kills.items())) or 'nobody'}")
    print(f"{len(sent.files)} files dropped, {sent.answered} objects answered; fates {fates}; studies {states}")
    for problem in problems[:20]:
        print(f"LOST: {problem}")
    if len(problems) > 20:
        print(f"… and {len(problems) - 20} more")


if __name__ == "__main__":
    main()
