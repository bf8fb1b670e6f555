"""CT slices per second into closed studies, by folder and by network, beside the disk alone and other receivers.

    python benchmarks/ingest.py [--slices 500] [--rounds 3] [--associations 1 8] [--directory DIR]

Slices of 512 × 512 at 16 bit, the same bytes for all, on the same file system:

- write + fsync: new files, each synced: what anybody has to do at least who takes bytes from elsewhere
- rename + fsync: files moved to another folder, each synced: the least for files from a folder
- folder: dropped into the inbox of the appliance, to the commit that stores the last one: settled, claimed, synced,
  hashed, header read, in the ledger, in the object store, assembled into studies
- bare: pynetdicom with a handler that writes and syncs
- C-STORE: the appliance over the network, to the same commit
- storescp: of DCMTK, started with TCP_NODELAY=1, else it stalls at 21/s; it does not sync
- orthanc: with SQLite and a synced storage area

All that listen get the objects from dcmsend. Each round runs everything, every other round in the opposite order; rates
and ratios are medians, CPU is that of the receiving side with all its processes. The ratios travel between machines,
the rates do not. What is not installed is left out, and said.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import structlog
from parts.network import WARM_UP, Run, appliance, bare, missing, orthanc, storescp
from parts.slices import ct_slices
from parts.takers import folder, rename_and_sync, write_and_sync

GOAL = 300.0
"""Slices per second from a folder."""


@dataclass(frozen=True)
class Taker:
    """Something that takes slices: its name, what measures it in an empty folder, and what it is compared with."""

    name: str
    measure: Callable[[Path, list[Path]], Run]
    floors: tuple[str, ...] = ("write + fsync",)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--associations", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--directory", type=Path, default=None, help="where to work; the disk to be measured")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    takers = _takers(options.associations)
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        root = Path(name)
        files = []
        for index, content in enumerate(ct_slices(WARM_UP + options.slices)):
            files.append(root / f"{index:05d}.dcm")
            files[-1].write_bytes(content)
        size = files[0].stat().st_size / 1e6
        print(
            f"{options.slices} CT slices of {size:.2f} MB, {os.cpu_count()} cores, {options.rounds} rounds", flush=True
        )
        rounds = [_round(root / "round", takers, files, number) for number in range(options.rounds)]
    _print(takers, rounds, options.slices)


def _takers(associations: Sequence[int]) -> list[Taker]:
    """Return what can be measured here; say what cannot."""
    takers = [
        Taker("write + fsync", write_and_sync, ()),
        Taker("rename + fsync", rename_and_sync, ()),
        Taker("folder", folder, ("write + fsync", "rename + fsync")),
    ]
    absent = missing(bare, appliance, storescp, orthanc)
    for name in absent:
        print(f"{name} is left out: its program, or dcmsend of DCMTK, is not installed")
    for count in associations:
        for kind in (bare, appliance, storescp, orthanc):
            if kind.__name__ in absent:
                continue
            name = {"appliance": "C-STORE"}.get(kind.__name__, kind.__name__)
            floors = ("write + fsync",) if kind is bare else ("write + fsync", f"bare, {count} assoc.")
            takers.append(Taker(f"{name}, {count} assoc.", partial(_over_network, kind, count), floors))
    return takers


def _over_network(kind: Callable[[Path, list[Path], int], Run], count: int, place: Path, files: list[Path]) -> Run:
    return kind(place, files, count)


def _round(place: Path, takers: list[Taker], files: list[Path], number: int) -> dict[str, Run]:
    runs = {}
    for taker in takers[:: -1 if number % 2 else 1]:
        place.mkdir()
        os.sync()  # what one run leaves to be written is not to slow the next one
        time.sleep(0.5)
        runs[taker.name] = taker.measure(place, files)
        shutil.rmtree(place)
    return runs


def _print(takers: list[Taker], rounds: list[dict[str, Run]], slices: int) -> None:
    print(f"{'':20}{'slices/s':>9}{'CPU ms':>8}   ratio to")
    for taker in takers:
        runs = [found[taker.name] for found in rounds]
        rate = slices / median(run.stored for run in runs)
        cpu = 1000 * median(run.cpu for run in runs) / slices
        ratios = [
            f"{floor}: {median(found[floor].stored / found[taker.name].stored for found in rounds):.2f}"
            for floor in taker.floors
            if floor in rounds[0]
        ]
        goal = f"   goal {GOAL:.0f}/s: {'kept' if rate >= GOAL else 'MISSED'}" if taker.name == "folder" else ""
        print(f"{taker.name:20}{rate:9.0f}{cpu:8.2f}   {', '.join(ratios)}{goal}")


if __name__ == "__main__":
    main()
