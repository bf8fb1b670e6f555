"""How fast training makes way for a patient: from the rename of a file into the inbox to the death of the trainer.

    python benchmarks/yielding.py [--rounds 3]

A real daemon with the settings as they come (but for the free space that has to be there, and a shorter wait before
the run goes on) trains the xray plugin on pictures of noise. One CT slice is renamed into the inbox:

- willing: the trainer writes a checkpoint and ends; that takes as long as the step it is at
- stubborn: the trainer is stopped (SIGSTOP) and hears nothing; it is killed after ``training.grace_s``, 4 s
- floor: 5 s, what a patient may be kept waiting at most

The memory of a process is free when it is dead, which the kernel tells by a descriptor of it.
"""

from __future__ import annotations

import argparse
import os
import random
import select
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil
from parts.daemons import started, stopped
from parts.slices import ct_slice, study_uid
from PIL import Image

from clinic_ai.control.client import Client
from clinic_ai.control.training_views import RunOrder
from clinic_ai.control.views import RunRow
from clinic_ai.home import Home, init_home

FLOOR_S = 5.0
PATIENTS = 60
SIDE = 128
PATIENCE_S = 300.0
SETTINGS = """
[[inbox]]
name = "inbox"
path = "inbox"

[training]
quiet_s = 1
max_seconds = 86400

[training.budget]
disk_reserve_mb = 0
"""
RECIPE = {"condition": "pneumonia", "tier": "fast", "epochs": 1_000_000, "patience": 1_000_000}


def write_pictures(folder: Path) -> None:
    """Write pictures of noise, one of each kind for each patient."""
    noise = random.Random(7)
    for patient in range(PATIENTS):
        for kind in ("pneumonia", "normal"):
            place = folder / kind / f"P{patient}" / "film.png"
            place.parent.mkdir(parents=True)
            Image.frombytes("L", (SIDE, SIDE), noise.randbytes(SIDE * SIDE)).save(place)


def at_work(client: Client, run_id: str) -> RunRow:
    """Wait until the run makes steps, and return it."""
    deadline, before = time.monotonic() + PATIENCE_S, client.run(run_id).progress
    while True:
        row = client.run(run_id)
        if row.state == "RUNNING" and row.progress not in (None, before):
            return row
        if row.state in {"FAILED", "FINISHED", "STOPPED"} or time.monotonic() > deadline:
            raise SystemExit(f"The run is {row.state}: {row.error} {row.progress}")
        time.sleep(0.1)


def trainer(daemon: psutil.Popen) -> int:
    """Return the number of the trainer's process."""
    return next(c.pid for c in daemon.children() if "clinic_ai.workers.trainer" in c.cmdline())


def seconds_to_death(home: Home, pid: int, number: int) -> float:
    """Rename a slice into the inbox and return the seconds until the process is dead."""
    waiting = home.path / f"slice-{number}.dcm"
    waiting.write_bytes(ct_slice(study_uid("yielding", number), 1))
    watched = os.pidfd_open(pid)
    try:
        began = time.perf_counter()
        waiting.rename(home.inbox / waiting.name)
        if not select.select([watched], [], [], PATIENCE_S)[0]:
            raise SystemExit("The trainer did not end.")
        return time.perf_counter() - began
    finally:
        os.close(watched)


def measure(home: Home, daemon: psutil.Popen, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each round, by how the trainer behaved."""
    found: dict[str, list[float]] = {"willing": [], "stubborn": []}
    with Client(home) as client:
        run = client.start_run(RunOrder(plugin="xray", dataset=str(home.labels / "xray"), recipe=RECIPE))
        for number in range(rounds):
            for kind, seconds in found.items():
                at_work(client, run.run_id)
                pid = trainer(daemon)
                if kind == "stubborn":
                    os.kill(pid, signal.SIGSTOP)
                seconds.append(seconds_to_death(home, pid, 2 * number + (kind == "stubborn")))
                row = client.run(run.run_id)
                if row.pause_code not in {"study", ""}:
                    raise SystemExit(f"It was paused for another reason: {row.error}")
        client.stop_run(run.run_id)
    return found


def main() -> int:
    """Measure and print; return 1 if the floor was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    kept = True
    with tempfile.TemporaryDirectory(prefix="clinic-ai-yielding-") as folder:
        home = init_home(Path(folder) / "home")
        home.clinic_toml.write_text(SETTINGS)
        write_pictures(home.labels / "xray")
        with (home.logs / "daemon.log").open("wb") as log:
            daemon = started(home, log.fileno())
            try:
                found = measure(home, daemon, rounds)
            finally:
                daemon.send_signal(signal.SIGTERM)
                stopped(daemon)
        for kind, seconds in found.items():
            worst = max(seconds)
            kept = kept and worst <= FLOOR_S
            print(
                f"{kind:9} trainer: dead after {statistics.median(seconds):.2f} s, at most {worst:.2f} s "
                f"({len(seconds)} times)   {worst / FLOOR_S:.2f} × the {FLOOR_S:g} s floor: "
                f"{'kept' if worst <= FLOOR_S else 'MISSED'}"
            )
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
