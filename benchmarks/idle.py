"""What the daemon costs while nothing happens: import time and resident memory, against its libraries alone.

    python benchmarks/idle.py [--rounds 5]

- floor: a fresh interpreter that imports the libraries any such daemon needs (FastAPI, uvicorn, SQLAlchemy,
  pydantic, psutil) and nothing of ours
- import: a fresh interpreter that imports ``clinic_ai.daemon``; median of the rounds, floor and ours by turns
- idle: a real ``clinic-ai run`` in a home that ``clinic-ai init`` has just made, measured once it has answered and its
  lanes have slept; RSS counts shared pages in full, PSS in parts. Children are listed by themselves.

Budgets: at most 2.5 times the import time of the floor, less than 120 MB of RSS for the daemon itself.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from clinic_ai.control.client import Client
from clinic_ai.control.sockets import answers
from clinic_ai.home import Home

FLOOR = "import fastapi, uvicorn, sqlalchemy, pydantic, psutil"
OURS = "import clinic_ai.daemon"
MEASURE = """
import time
began = time.perf_counter()
{what}
spent = time.perf_counter() - began
import json, psutil
memory = psutil.Process().memory_full_info()
print(json.dumps([spent, memory.rss, memory.pss]))
"""
IMPORT_BUDGET = 2.5
"""Times the floor."""
RSS_BUDGET = 120e6
"""Bytes."""
SETTLE_S = 5.0
START_TIMEOUT_S = 60.0


def imported(what: str) -> tuple[float, int, int]:
    """Return seconds, RSS and PSS in bytes of a fresh interpreter that imports ``what``."""
    command = [sys.executable, "-c", MEASURE.format(what=what)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, rss, pss = json.loads(answer.stdout)
    return float(seconds), int(rss), int(pss)


def idle(home: Home) -> tuple[psutil.Process, subprocess.Popen[bytes]]:
    """Start the daemon, wait until it answers, and let it settle."""
    command = [sys.executable, "-m", "clinic_ai", "run", "--home", str(home.path)]
    daemon = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + START_TIMEOUT_S
    while not (home.control_socket.exists() and answers(home.control_socket)):
        if daemon.poll() is not None or time.monotonic() > deadline:
            daemon.kill()
            raise SystemExit("The daemon did not start; try `clinic-ai run` in an empty home to see why.")
        time.sleep(0.1)
    with Client(home) as client:
        client.status()  # what the first request loads belongs to the price too
    time.sleep(SETTLE_S)
    return psutil.Process(daemon.pid), daemon


def report_idle(floor_rss: float) -> None:
    """Print the memory of an idle daemon and of each of its children."""
    with tempfile.TemporaryDirectory(prefix="clinic-ai-idle-") as folder:
        home = Home(Path(folder) / "home")
        command = [sys.executable, "-m", "clinic_ai", "init", "--home", str(home.path)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        process, daemon = idle(home)
        try:
            memory, before = process.memory_full_info(), process.cpu_times()
            time.sleep(SETTLE_S)
            after = process.cpu_times()
            busy = (after.user + after.system - before.user - before.system) / SETTLE_S
            print(
                f"idle daemon   RSS {memory.rss / 1e6:6.1f} MB  PSS {memory.pss / 1e6:6.1f} MB  "
                f"{memory.rss / floor_rss:.2f} × floor   budget {RSS_BUDGET / 1e6:.0f} MB: "
                f"{'kept' if memory.rss <= RSS_BUDGET else 'MISSED'}   CPU {busy:.1%} of one core"
            )
            for child in process.children(recursive=True):
                used = child.memory_full_info()
                name = next((word for word in child.cmdline() if word.startswith("clinic_ai.")), child.name())
                print(f"  child       RSS {used.rss / 1e6:6.1f} MB  PSS {used.pss / 1e6:6.1f} MB  {name}")
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(timeout=60)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    imported(FLOOR), imported(OURS)  # byte code and disk cache are warm from here on
    pairs = [(imported(FLOOR), imported(OURS)) for _ in range(rounds)]
    floor_s, ours_s = (statistics.median(pair[who][0] for pair in pairs) for who in (0, 1))
    floor_rss, ours_rss = (statistics.median(pair[who][1] for pair in pairs) for who in (0, 1))
    ratio = statistics.median(ours[0] / floor[0] for floor, ours in pairs)
    verdict = "kept" if ratio <= IMPORT_BUDGET else "MISSED"
    print(f"floor import  {floor_s:.3f} s   RSS {floor_rss / 1e6:6.1f} MB   ({FLOOR})")
    print(
        f"daemon import {ours_s:.3f} s   RSS {ours_rss / 1e6:6.1f} MB   {ratio:.2f} × floor   "
        f"budget {IMPORT_BUDGET:g} ×: {verdict}"
    )
    report_idle(floor_rss)


if __name__ == "__main__":
    main()
