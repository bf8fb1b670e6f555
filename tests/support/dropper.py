"""A clinic that never stops sending: drops files of all sorts into inboxes, in all the ways that senders have.

Everything follows from the seed, apart from the clock. Each file is written down before it comes into view.

``python -m dropper ASIDE DROPS SEED PAUSE STOP INBOX…`` drops bursts, PAUSE seconds apart, until there is a file STOP.
"""

from __future__ import annotations

import hashlib
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pydicom
from scans import write_ct_slice
from whole import QUARANTINED, STORED, Drop, Drops


class Dropper:
    """Drops studies of 1 to 6 slices; ``aside`` has to be on the file system of the first inbox."""

    def __init__(self, inboxes: Sequence[Path], aside: Path, drops: Drops, seed: int, *, modality: str = "CT") -> None:
        self._dice = random.Random(seed)
        self._inboxes = inboxes
        self._aside = aside
        self._drops = drops
        self._seed = seed
        self._modality = modality
        self._studies = 0
        self._files = 0
        self._sent: list[tuple[bytes, str]] = []
        aside.mkdir(exist_ok=True)

    def burst(self) -> None:
        """Drop the slices of some studies in any order, and now and then something else."""
        slices = [one for _ in range(self._dice.randint(1, 3)) for one in self._study()]
        self._dice.shuffle(slices)
        for content, study in slices:
            self._drop(content, study, ".dcm", STORED)
        if self._dice.random() < 0.3:
            self._drop(b"no scan " + str(self._files).encode(), "", ".txt", QUARANTINED)
        if self._dice.random() < 0.3:
            self._drop(*self._dice.choice(self._sent), " again.dcm", STORED)

    def _study(self) -> list[tuple[bytes, str]]:
        self._studies += 1
        number = self._seed * 10_000 + self._studies
        slices = []
        for instance in range(1, self._dice.randint(1, 6) + 1):
            path = self._aside / "slice"
            study = write_ct_slice(path, seed=number, instance=instance, side=16)
            if self._modality != "CT":
                dataset = pydicom.dcmread(path)
                dataset.Modality = self._modality
                dataset.save_as(path)
            slices.append((path.read_bytes(), study))
            path.unlink()
        self._sent += slices
        return slices

    def _drop(self, content: bytes, study: str, ending: str, fates: tuple[str, ...]) -> None:
        self._files += 1
        name = f"{self._seed}-{self._files}{ending}"
        inbox = self._dice.choice(self._inboxes)
        if self._dice.random() < 0.3:
            folder = f"folder {self._dice.randint(1, 3)}"
            (inbox / folder).mkdir(exist_ok=True)
            name = f"{folder}/{name}"
        self._drops.note(Drop(name, hashlib.sha256(content).hexdigest(), study, fates))
        self._dice.choice(_WAYS)(self._aside, inbox / name, content)


def _rename(aside: Path, place: Path, content: bytes) -> None:
    draft = aside / "draft"
    draft.write_bytes(content)
    if draft.stat().st_dev == place.parent.stat().st_dev:
        draft.rename(place)
    else:
        _hidden(aside, place, content)


def _hidden(aside: Path, place: Path, content: bytes) -> None:
    """As rsync does: under a hidden name first."""
    draft = place.with_name(f".{place.name}.part")
    draft.write_bytes(content)
    draft.rename(place)


def _in_place(aside: Path, place: Path, content: bytes) -> None:
    with place.open("xb", buffering=0) as file:
        file.write(content[: len(content) // 2])
        time.sleep(0.02)
        file.write(content[len(content) // 2 :])


def _second_name(aside: Path, place: Path, content: bytes) -> None:
    """A hard link: somebody else keeps a name of the same file for a while."""
    draft = aside / f"linked {place.name}"
    draft.write_bytes(content)
    try:
        os.link(draft, place)
    except OSError:
        _hidden(aside, place, content)
    draft.unlink()


_WAYS: list[Callable[[Path, Path, bytes], None]] = [_rename, _rename, _hidden, _in_place, _second_name]


def send(dropper: Dropper, pause_s: float, stop: Path) -> None:
    """Drop bursts until there is a file ``stop``."""
    while not stop.exists():
        dropper.burst()
        time.sleep(pause_s)


if __name__ == "__main__":
    aside, drops, seed, pause_s, stop, *inboxes = sys.argv[1:]
    send(Dropper([Path(i) for i in inboxes], Path(aside), Drops(Path(drops)), int(seed)), float(pause_s), Path(stop))
