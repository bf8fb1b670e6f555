"""Checkpoints of training runs: safetensors and JSON, whole or not there; never a pickle.

A checkpoint is a directory, ``epoch-00007`` after an epoch and ``epoch-00007-step-000012`` in the middle of the next,
with ``tensors.safetensors``, ``state.json`` and ``complete.json``, which has the hashes of both. It is written under
another name and renamed once it is whole. One without that marker, or whose hashes differ, does not count.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from clinic_ai.errors import HomeError

Tensors = dict[str, npt.NDArray[Any]]

KEPT = 2
"""Checkpoints of a run that are kept where its recipe says nothing else."""
_NAME = re.compile(r"epoch-(\d{5})(?:-step-(\d{6}))?(?:-again-(\d{3}))?")
_TENSORS, _STATE, _MARKER = "tensors.safetensors", "state.json", "complete.json"
_FINGERPRINT = "fingerprint"
_FULL = {errno.ENOSPC, errno.EDQUOT}
_REMEDY = "Make room on the disk of the home, then go on with `clinic-ai train resume`."
_DAMAGED, _FOREIGN = "damaged", "of another run"


def fingerprint(**parts: Any) -> str:
    """Return what tells one run from another: a hash of plain values such as dataset, base and recipe."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on as if nothing had happened, ``step`` steps into the epoch after ``epoch``.

    ``state`` is plain JSON.
    """

    epoch: int
    tensors: Tensors
    state: dict[str, Any]
    step: int = 0


@dataclass(frozen=True, order=True)
class _Place:
    """Where in a run a checkpoint is; ``again`` counts those that were written at one place, none over another."""

    epoch: int
    step: int
    again: int = 0

    @property
    def name(self) -> str:
        step = f"-step-{self.step:06d}" if self.step else ""
        again = f"-again-{self.again:03d}" if self.again else ""
        return f"epoch-{self.epoch:05d}{step}{again}"

    def in_words(self) -> str:
        return f"epoch {self.epoch}, step {self.step} of the next" if self.step else f"epoch {self.epoch}"


@dataclass
class Checkpoints:
    """Those of one run below ``directory``; what has another ``fingerprint`` is of another run and is not taken up.

    ``keep`` of them are kept, and that of the best epoch. ``notes`` tell people which could not be used.
    """

    directory: Path
    fingerprint: str
    keep: int = KEPT
    notes: list[str] = field(default_factory=list)
    _useless: dict[_Place, str] = field(default_factory=dict)

    def newest(self) -> Checkpoint | None:
        """Return the newest whole checkpoint of this run, None if there is none; the run begins anew then."""
        found, useless = None, {}
        for place in sorted(self._places(), reverse=True):
            checkpoint = _read(self.directory / place.name, place)
            if checkpoint is None:
                useless[place] = _DAMAGED
            elif checkpoint.state.get(_FINGERPRINT) != self.fingerprint:
                useless[place] = _FOREIGN
            else:
                found = checkpoint
                break
        if useless and not useless.keys() <= self._useless.keys():
            self.notes.append(_told(useless, found))
        self._useless |= useless
        return found

    def save(self, checkpoint: Checkpoint, *, best_epoch: int = 0, also: Collection[int] = ()) -> None:
        """Write ``checkpoint`` durably, then remove what is not kept.

        The checkpoints right after ``best_epoch`` and after each of ``also`` are never removed. Raise HomeError if the
        disk is full; all checkpoints from before are whole then.
        """
        before = self._places()
        here = [place.again for place in before if (place.epoch, place.step) == (checkpoint.epoch, checkpoint.step)]
        place = _Place(checkpoint.epoch, checkpoint.step, max(here) + 1 if here else 0)
        state = {**checkpoint.state, _FINGERPRINT: self.fingerprint}
        self._write(place, Checkpoint(place.epoch, checkpoint.tensors, state, place.step))
        # What lies further on was found useless, or the run went back behind it: it must not be taken up again.
        usable = sorted(other for other in before if other < place and other not in self._useless)
        best = {best_epoch, *also}
        kept = {*usable[len(usable) + 1 - self.keep :], *(p for p in usable if p.epoch in best and not p.step)}
        for other in before:
            if other not in kept:
                shutil.rmtree(self.directory / other.name)
        self._useless.clear()

    def _write(self, place: _Place, checkpoint: Checkpoint) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        for leftover in self.directory.glob(".*.part"):
            shutil.rmtree(leftover)
        temporary = self.directory / f".{place.name}.part"
        contents = {
            _TENSORS: save_tensors({name: np.asarray(array, order="C") for name, array in checkpoint.tensors.items()}),
            _STATE: json.dumps(checkpoint.state, sort_keys=True).encode(),
        }
        hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
        try:
            temporary.mkdir()
            for name, content in {**contents, _MARKER: json.dumps(hashes).encode()}.items():
                write_durably(temporary / name, content)
            temporary.rename(self.directory / place.name)
            _sync(self.directory)
        except (OSError, HomeError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if isinstance(error, OSError) and error.errno not in _FULL:
                raise
            raise HomeError(
                f"The disk is full: the checkpoint after {place.in_words()} could not be written. Those before are "
                "whole.",
                remedy=_REMEDY,
            ) from error

    def _places(self) -> list[_Place]:
        if not self.directory.is_dir():
            return []
        matches = (_NAME.fullmatch(entry.name) for entry in self.directory.iterdir())
        return [_Place(*(int(number or 0) for number in match.groups())) for match in matches if match]


def write_durably(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content`` so that after a power cut it is there in full or not at all.

    Raise HomeError if the disk is full; what was there before is still there then.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno not in _FULL:
            raise
        raise HomeError(f"The disk is full: {path.name} could not be written.", remedy=_REMEDY) from error


def _sync(directory: Path) -> None:
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _read(directory: Path, place: _Place) -> Checkpoint | None:
    try:
        hashes = json.loads((directory / _MARKER).read_bytes())
        contents = {name: (directory / name).read_bytes() for name in (_TENSORS, _STATE)}
    except (OSError, ValueError):
        return None
    if {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()} != hashes:
        return None
    state = json.loads(contents[_STATE])
    return Checkpoint(place.epoch, load_tensors(contents[_TENSORS]), state, place.step)


def _told(useless: dict[_Place, str], found: Checkpoint | None) -> str:
    which = "; ".join(f"after {place.in_words()}: {why}" for place, why in useless.items())
    if found is None:
        return f"No checkpoint could be used ({which}), so the run began anew."
    place = _Place(found.epoch, found.step)
    return f"A checkpoint could not be used ({which}); the run went on from the one after {place.in_words()}."


def below(prefix: str, tensors: Tensors) -> Tensors:
    """Return the tensors whose names begin with ``prefix`` and a dot, without it."""
    return {name.removeprefix(f"{prefix}."): value for name, value in tensors.items() if name.startswith(f"{prefix}.")}
