"""How long lists and figures take when the database is large: 10,000 studies, a million files in the ledger.

    python benchmarks/listing.py [--studies 10000] [--files 1000000] [--receiving 300] [--directory DIR]

A database is filled first. Then the same questions are asked three ways: to the store, over the socket of a real
daemon by the typed client, and on the command line. The floor is the same daemon's answer to ``/healthz``, and for the
command line ``clinic-ai --help``: what asking anything costs. Times are medians of wall time in milliseconds; the
budget is that a page of 50 studies, as the command line shows it, is there in 50 ms, and so is a part of the queue as
the terminal shows it: the rows to be seen and a page each side. Last comes what a daemon spends
that only watches, with ``--receiving`` studies open and without.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from parts.crowd import RECEIVING_HASH, fill
from parts.daemons import started, stopped

from clinic_ai.control.terminal_client import TerminalClient
from clinic_ai.domain import Fate, QueueSort, StudyState
from clinic_ai.home import Home, init_home
from clinic_ai.store import alerts, artefacts, groups, jobs, ledger, queue, studies
from clinic_ai.store.database import Database

ROUNDS = 9
BUDGET_MS = 50.0
IDLE_S = 20.0
SETTINGS = """
[ingest]
quiet_period_s = 86400
deadline_s = 604800
"""
"""Nothing is closed while it is measured."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=10_000)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--receiving", type=int, default=300)
    parser.add_argument("--directory", type=Path, default=None, help="where to work; the disk to be measured")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        home, empty = init_home(Path(name) / "full"), init_home(Path(name) / "empty")
        for one in (home, empty):
            one.clinic_toml.write_text(SETTINGS)
        began = time.perf_counter()
        fill(home, studies=options.studies, files=options.files, receiving=options.receiving)
        size = home.database.stat().st_size
        print(
            f"{options.studies} studies, {options.receiving} of them receiving, {options.files} files in the ledger; "
            f"database of {size / 1e6:.0f} MB, made in {time.perf_counter() - began:.0f} s"
        )
        _store(home)
        with _daemon(home) as process:
            _client(home)
            _command_line(home)
            full = _idle(process)
        with _daemon(empty) as process:
            nothing = _idle(process)
    print(f"a daemon that only watches: {full:.1f} % of a core; over an empty database {nothing:.1f} %")


def _report(name: str, question: Callable[[], object], floor_ms: float = 0.0, *, budget: bool = False) -> float:
    """Ask some times, print and return the median in milliseconds."""
    question()
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        question()
        times.append(1000 * (time.perf_counter() - began))
    median = statistics.median(times)
    ratio = f"   {median / floor_ms:6.1f} × floor" if floor_ms else ""
    verdict = f"   budget {BUDGET_MS:.0f} ms: {'kept' if median < BUDGET_MS else 'MISSED'}" if budget else ""
    print(f"  {name:34}{median:9.2f} ms{ratio}{verdict}", flush=True)
    return median


def _store(home: Home) -> None:
    database = Database(home.database)
    with database.read() as connection:
        newest = studies.list_studies(connection, limit=1)[0]
        last = studies.list_studies(connection, limit=1000)[-1]
        middle = last.opened_at, last.study_id, last.version
        print("store")
        found = queue.look(connection, limit=1).total
        floor = _report("floor: SELECT 1", lambda: connection.exec_driver_sql("SELECT 1").all())

        def ask(name: str, question: Callable[[], object], *, budget: bool = False) -> None:
            _report(name, question, floor, budget=budget)

        ask("studies, newest 50", lambda: studies.list_studies(connection, limit=50), budget=True)
        ask("studies, newest 1000", lambda: studies.list_studies(connection, limit=1000))
        ask("studies, 50 further down", lambda: studies.list_studies(connection, limit=50, before=middle), budget=True)
        failed = [StudyState.FAILED]
        ask("studies, 50 that failed", lambda: studies.list_studies(connection, limit=50, states=failed), budget=True)
        ask("queue, the first 90", lambda: queue.look(connection, limit=90), budget=True)
        ask("queue, the last 90", lambda: queue.look(connection, offset=found - 90, limit=90), budget=True)
        ask("queue, 90 by modality", lambda: queue.look(connection, sort=QueueSort.MODALITY, limit=90), budget=True)
        ask("queue, with two words", lambda: queue.look(connection, words=("ct", "rule"), limit=90), budget=True)
        ask("studies that are receiving", lambda: studies.studies_in(connection, StudyState.RECEIVING))
        ask("studies by state", lambda: studies.counts(connection))
        ask("files by fate", lambda: ledger.counts(connection))
        ask("files, newest 100", lambda: ledger.list_files(connection, limit=100))
        ask("files, 100 in quarantine", lambda: ledger.list_files(connection, limit=100, fates=[Fate.QUARANTINED]))
        ask("files of one study", lambda: ledger.list_files(connection, study_id=newest.study_id, limit=1000))
        ask("files on their way", lambda: ledger.pending(connection))
        ask("200 hashes known", lambda: groups.known_hashes(connection, newest.study_id, RECEIVING_HASH))
        ask("jobs by state", lambda: jobs.counts(connection))
        ask("artefacts by state", lambda: artefacts.counts(connection))
        ask("open alerts", lambda: alerts.open_alerts(connection))
    database.close()


def _client(home: Home) -> None:
    with TerminalClient(home, monitor=True) as client:
        print("client, over the socket")
        floor = _report("floor: /healthz", lambda: client._request("GET", "/healthz"))
        page = client.queue(limit=1)

        def ask(name: str, question: Callable[[], object], *, budget: bool = False) -> None:
            _report(name, question, floor, budget=budget)

        ask("studies, newest 50", lambda: client.studies(limit=50), budget=True)
        ask("studies, newest 1000", lambda: client.studies(limit=1000))
        ask("queue, the first 90", lambda: client.queue(limit=90), budget=True)
        ask("queue, the last 90", lambda: client.queue(offset=page.total - 90, limit=90), budget=True)
        ask("queue, with two words", lambda: client.queue(words="ct rule", limit=90), budget=True)
        ask("one study", lambda: client.study(page.studies[0].study_id))
        ask("files, newest 100", lambda: client.files(limit=100))
        ask("status", client.status)
        ask("metrics", client.metrics)


def _command_line(home: Home) -> None:
    def command(*words: str) -> Callable[[], object]:
        line = [sys.executable, "-m", "clinic_ai", *words]
        environment = {**os.environ, "CLINIC_AI_HOME": str(home.path)}
        return lambda: subprocess.run(line, check=True, capture_output=True, env=environment)

    print("command line")
    floor = _report("floor: clinic-ai --help", command("--help"))
    _report("study list", command("study", "list"), floor)
    _report("study list --limit 1000", command("study", "list", "--limit", "1000"), floor)
    _report("file list", command("file", "list"), floor)
    _report("status", command("status"), floor)


@contextmanager
def _daemon(home: Home) -> Iterator[psutil.Process]:
    with (home.logs / "daemon.log").open("wb") as log:
        daemon = started(home, log.fileno())
        try:
            yield daemon
        finally:
            daemon.send_signal(signal.SIGTERM)
            stopped(daemon)


def _idle(daemon: psutil.Process) -> float:
    """Return how much of a core the daemon takes that nobody asks anything, in percent."""
    before = sum(daemon.cpu_times()[:2])
    time.sleep(IDLE_S)
    return 100 * (sum(daemon.cpu_times()[:2]) - before) / IDLE_S


if __name__ == "__main__":
    main()
