"""Objects per second over C-STORE, beside the least that any receiver in Python has to do.

    python benchmarks/receive.py [--slices 600] [--rounds 5] [--associations 1 8] [--directory DIR]

CT slices of 512 × 512 at 16 bit are sent by DCMTK's dcmsend, by 1 association and by 8 at a time, to:

- bare: pynetdicom with a handler that writes each object, syncs it and answers success
- receiver: the appliance's receiver child alone
- appliance: receiver and ingest together, as in the daemon; "answered" is when the senders were done, "stored" when
  the last object was hashed, parsed and committed as part of a study

Each round runs all of them, every other round in the opposite order, and gives a ratio to the bare handler of that
round. Medians are printed, and of the ratio the smallest and largest too. CPU is what the receiving side used for one
object, in all its processes: less noisy than a rate where a machine is shared. The ratios travel between machines, the
rates do not. All senders and receivers share the machine.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

import structlog
from parts.network import WARM_UP, Run, appliance, bare, receiver
from parts.slices import ct_slices


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--associations", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--directory", type=Path, default=None, help="where to work; the disk to be measured")
    options = parser.parse_args()
    if not shutil.which("dcmsend"):
        raise SystemExit("This benchmark sends with dcmsend of DCMTK, which is not installed.")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        root = Path(name)
        files = []
        for index, content in enumerate(ct_slices(WARM_UP + options.slices)):
            files.append(root / f"{index:05d}.dcm")
            files[-1].write_bytes(content)
        print(f"{options.slices} CT slices of {files[0].stat().st_size / 1e6:.2f} MB, {os.cpu_count()} cores")
        for count in options.associations:
            rounds = [_round(root / "round", files, count, number % 2 == 1) for number in range(options.rounds)]
            _print(count, rounds, options.slices)


def _round(place: Path, files: list[Path], count: int, backwards: bool) -> dict[str, Run]:
    kinds: dict[str, Callable[[Path, list[Path], int], Run]] = {
        "bare": bare,
        "receiver": receiver,
        "appliance": appliance,
    }
    runs = {}
    for kind in sorted(kinds, reverse=backwards):
        place.mkdir()
        runs[kind] = kinds[kind](place, files, count)
        shutil.rmtree(place)
        os.sync()  # what one run leaves to be written is not to slow the next one
    return runs


def _print(count: int, rounds: list[dict[str, Run]], slices: int) -> None:
    def line(what: str, kind: str, seconds: Callable[[Run], float]) -> None:
        rate = slices / median(seconds(runs[kind]) for runs in rounds)
        cpu = median(runs[kind].cpu for runs in rounds) / slices * 1e3
        text = f"  {what:20} {rate:6.0f}/s   CPU {cpu:5.2f} ms"
        if kind != "bare":
            ratios = sorted(runs["bare"].stored / seconds(runs[kind]) for runs in rounds)
            text += f"   ratio {median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        print(text)

    print(f"{count} association{'s' if count > 1 else ''}, {len(rounds)} rounds")
    line("bare", "bare", lambda run: run.stored)
    line("receiver", "receiver", lambda run: run.stored)
    line("appliance, answered", "appliance", lambda run: run.answered)
    line("appliance, stored", "appliance", lambda run: run.stored)


if __name__ == "__main__":
    main()
