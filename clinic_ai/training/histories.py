"""How the loss and the metrics of a run went: what its trainer wrote after each epoch, and the steps in between."""

from __future__ import annotations

import csv
import io
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from clinic_ai.contract import TrainingProgress
from clinic_ai.domain import Word
from clinic_ai.processes import UnsafeFile, open_produced
from clinic_ai.store.runs import RunView
from clinic_ai.training.loss_curves import HISTORY

MAX_POINTS = 500
"""Most points of one series that are told; a longer one is thinned evenly."""
STEPS = "step loss"
"""Name of the series of the steps; the others are named by their column."""
_MAX_BYTES = 8 << 20
_NO_FIGURES = frozenset({"epoch", "step", "stage", "answers", "wall_time", "elapsed_s", "seconds"})
_REMEMBERED_RUNS = 4
_DENSE = 2 * MAX_POINTS

Point = tuple[float, float]
T = TypeVar("T")


class Series(Word):
    """One figure along a run: (epochs done, value), in this order."""

    name: str
    points: tuple[Point, ...]


class History(Word):
    """The figures of a run so far; ``epochs`` is how many it is to have, 0 if nobody knows.

    ``note`` says why there are none, or fewer than there should be.
    """

    run_id: str
    epochs: int
    series: tuple[Series, ...]
    note: str = ""


class Traces:
    """The losses of the steps of the newest runs, since this process began. Any thread may add or read.

    A trace that grows long keeps every second point, so that a run of any length takes the same room.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._points: OrderedDict[str, list[Point]] = OrderedDict()

    def add(self, run_id: str, progress: TrainingProgress) -> None:
        """Note the loss of a step, if the trainer told one."""
        if progress.loss is None or not math.isfinite(progress.loss) or progress.steps < 1:
            return
        at = progress.epochs * progress.step / progress.steps
        with self._lock:
            points = self._points.setdefault(run_id, [])
            self._points.move_to_end(run_id)
            while len(self._points) > _REMEMBERED_RUNS:
                self._points.popitem(last=False)
            while points and points[-1][0] >= at:  # a run that goes on from a checkpoint takes some steps again
                points.pop()
            points.append((at, progress.loss))
            if len(points) > _DENSE:
                del points[1::2]

    def of(self, run_id: str) -> tuple[Point, ...]:
        """Return the points of a run, none if nothing is known of it."""
        with self._lock:
            return tuple(self._points.get(run_id, ()))


def history_of(run: RunView, directory: Path, trace: Sequence[Point]) -> History:
    """Return the figures of a run: those of its result, else what its trainer wrote into its ``directory`` so far."""
    plan, note = run.planned, ""
    entries: Sequence[dict[str, float]] = (run.result or {}).get("history") or ()
    if not entries:
        entries, note = _written(directory)
    epochs = plan.epochs if plan is not None else int((run.progress or {}).get("epochs") or 0)
    series = [Series(name=STEPS, points=thinned(trace))] if trace else []
    return History(run_id=run.run_id, epochs=epochs, series=(*series, *_columns(entries)), note=note)


def thinned(points: Sequence[T]) -> tuple[T, ...]:
    """Return at most ``MAX_POINTS`` of these, evenly chosen, the first and the last among them."""
    last = len(points) - 1
    if last < MAX_POINTS:
        return tuple(points)
    return tuple(points[round(number * last / (MAX_POINTS - 1))] for number in range(MAX_POINTS))


def _columns(entries: Iterable[dict[str, float]]) -> list[Series]:
    found: dict[str, list[Point]] = {}
    for number, entry in enumerate(entries, start=1):
        at = entry.get("epoch", float(number))
        for name, value in entry.items():
            if name not in _NO_FIGURES and math.isfinite(value) and math.isfinite(at):
                found.setdefault(name[:100], []).append((at, value))
    return [Series(name=name, points=thinned(points)) for name, points in found.items()]


def _written(directory: Path) -> tuple[list[dict[str, float]], str]:
    """Return the rows of the table of a run, and what is wrong with it; the trainer may be writing it just now."""
    for folder in (directory, directory / "model"):
        if not (folder / HISTORY).exists():
            continue
        try:
            with os.fdopen(open_produced(folder, HISTORY, max_bytes=_MAX_BYTES), "rb") as file:
                text = file.read(_MAX_BYTES).decode("utf-8-sig")
            return [_figures(row) for row in csv.DictReader(io.StringIO(text, newline=""), strict=True)], ""
        except (UnsafeFile, OSError, UnicodeDecodeError, csv.Error):
            return [], f"{HISTORY} of the run cannot be read; the log of the trainer may say more."
    return [], ""


def _figures(row: dict[str | None, str | list[str] | None]) -> dict[str, float]:
    found = {}
    for name, words in row.items():
        try:
            found[str(name)] = float(str(words))
        except ValueError:
            continue
    return found
