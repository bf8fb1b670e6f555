"""Where loss curves come from: the history of a run, its CSV file while it works, or a CSV file somebody names."""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from clinic_ai.errors import InputError
from clinic_ai.forecasting import MAX_POINTS, CurveUnit, LossCurve
from clinic_ai.processes import UnsafeFile, open_produced
from clinic_ai.store.runs import RunView

HISTORY = "training_history.csv"
"""What a trainer writes after each epoch, in the directory of its run or beside its model."""
MAX_BYTES = 64 << 20
_STEPS = ("step", "steps", "global_step", "iteration", "iterations", "iter", "batch", "t", "epoch", "epochs")
_LOSSES = ("loss", "train_loss", "training_loss", "value", "y")
_CLOCKS = ("wall_time", "elapsed_s", "seconds")


@dataclass(frozen=True)
class FoundCurve:
    """A loss curve; ``seconds_per_step`` is what its clock tells, None without one."""

    curve: LossCurve
    seconds_per_step: float | None = None


def curve_of_run(run: RunView, directory: Path) -> LossCurve:
    """Return the loss curve of a run: its result's history, else the CSV file in its ``directory``.

    Where the plan says how many steps an epoch has, a loss of an epoch stands at the middle of its steps: it is the
    mean over them. Raise InputError if there is none, or if it is none that can be read.
    """
    name = f"run {run.run_id}"
    history = (run.result or {}).get("history")
    curve = _of_history(history, name) if history else _written(directory)
    if curve is None or not curve.steps:
        raise InputError(
            "no_curve",
            f"The {name} has no loss curve yet: it is {run.state.value}, and no epoch of it is known to be over.",
            remedy="Wait for its first epochs, or give a file with --csv.",
        )
    plan, steps, unit = run.planned, curve.steps, curve.unit
    if unit == "epoch" and plan is not None and plan.epochs > 0 and plan.steps > 0:
        steps, unit = tuple((epoch - 0.5) * plan.steps / plan.epochs for epoch in steps), "step"
    return LossCurve(name=name, unit=unit, steps=steps, losses=curve.losses)


def read_curve(path: Path, column: str = "") -> FoundCurve:
    """Return the loss curve of a CSV file, with or without a header; ``column`` is that of the loss.

    Without a name the columns are told by theirs; of a file without a header, the first is the step and the second the
    loss. Rows without a loss are passed over. Raise InputError, one sentence with the line, if it cannot be used.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError("unreadable", f"{path} cannot be read: {error.strerror}.") from error
    return _parse(content, path.name, column)


def _of_history(entries: Sequence[dict[str, Any]], name: str) -> LossCurve:
    unit: CurveUnit = "step" if all("step" in entry for entry in entries) else "epoch"
    steps, losses = [], []
    for number, entry in enumerate(entries, start=1):
        where = f"Entry {number} of the history of {name}"
        steps.append(_number(entry.get(unit, number), where, unit))
        losses.append(_number(entry.get("loss"), where, "loss"))
    return LossCurve(name=name, unit=unit, steps=tuple(steps), losses=tuple(losses))


def _written(directory: Path) -> LossCurve | None:
    """Return what the trainer of a run wrote aside so far, None if that is nothing."""
    for folder in (directory, directory / "model"):
        if not (folder / HISTORY).exists():
            continue
        try:
            descriptor = open_produced(folder, HISTORY, max_bytes=MAX_BYTES)
        except (UnsafeFile, OSError) as error:
            raise InputError("unreadable", f"The loss curve in {folder} cannot be read safely.") from error
        with os.fdopen(descriptor, "rb") as file:
            return _parse(file.read(), HISTORY, "").curve
    return None


def _text(content: bytes, name: str) -> str:
    if len(content) > MAX_BYTES:
        raise InputError("too_large", f"{name} has more than {MAX_BYTES >> 20} MiB, which is no loss curve.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError("no_text", f"Line {line} of {name} is no text in UTF-8.") from error
    if "\0" in text:
        raise InputError("no_text", f"{name} is no text: it has zero bytes.")
    return text


def _rows(text: str, name: str) -> list[tuple[int, list[str]]]:
    """Return the rows that are not empty, each with the number of its line."""
    start = text[:1000]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=start.count), strict=True)
    try:
        return [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise InputError("no_csv", f"Line {reader.line_num} of {name} is no CSV: {error}.") from error


def _parse(content: bytes, name: str, column: str) -> FoundCurve:
    rows = _rows(_text(content, name), name)
    if not rows:
        raise InputError("empty", f"{name} is empty.", remedy="Give a CSV file with a step and a loss in each line.")
    header = [_plain(cell) for cell in rows[0][1]]
    if len(header) >= 2 and all(_float(cell) is not None for cell in rows[0][1]):
        header = ["step", "loss", *("" for _ in header[2:])]
    else:
        rows = rows[1:]
    at, of, clock = _columns(header, _plain(column), name)
    points = _Points(name)
    for line, row in rows:
        if of < len(row) and row[of].strip():
            points.add(line, row[at] if at < len(row) else "", row[of], _at(row, clock))
    unit: CurveUnit = "epoch" if header[at].startswith("epoch") else "step"
    return points.curve(unit)


class _Points:
    """The points of a file, one after the other, each with its line."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lines: dict[float, int] = {}
        self._losses: list[float] = []
        self._times: list[float | None] = []

    def add(self, line: int, step: str, loss: str, time: str) -> None:
        """Add a point. Raise InputError if it is none, or if its step is not after the one before."""
        where = f"Line {line} of {self._name}"
        at, value = _number(step, where, "step"), _number(loss, where, "loss")
        if at in self._lines:
            raise InputError(
                "duplicate",
                f"Step {at:g} is in {self._name} twice, in lines {self._lines[at]} and {line}.",
                remedy="Keep one of them; a run that was resumed logs the steps after its checkpoint again.",
            )
        before = next(reversed(self._lines), -math.inf)
        if at < before:
            raise InputError(
                "not_in_order", f"{where} has step {at:g} after step {before:g}.", remedy="Sort the file by its steps."
            )
        self._lines[at] = line
        self._losses.append(value)
        self._times.append(_float(time))

    def curve(self, unit: CurveUnit) -> FoundCurve:
        """Return the curve. Raise InputError if it has too many points."""
        steps, losses, times = list(self._lines), self._losses, self._times
        if len(steps) > MAX_POINTS:
            raise InputError(
                "too_many",
                f"{self._name} has {len(steps)} points; {MAX_POINTS} are the most that are taken.",
                remedy="Keep every second or tenth of them.",
            )
        if steps and steps[0] == 0:  # many logs begin at 0, the law does not
            steps, losses, times = steps[1:], losses[1:], times[1:]
        curve = LossCurve(name=self._name[:200], unit=unit, steps=tuple(steps), losses=tuple(losses))
        return FoundCurve(curve, _pace(steps, times))


def _columns(header: list[str], wanted: str, name: str) -> tuple[int, int, int | None]:
    """Return the columns of step and loss, and of the clock if there is one. Raise InputError if they are unclear."""
    there = ", ".join(cell or "(nameless)" for cell in header)
    if wanted:
        if wanted not in header:
            raise InputError("no_loss", f"{name} has no column {wanted}; it has {there}.")
        of = header.index(wanted)
    else:
        found = [header.index(known) for known in _LOSSES if known in header]
        found = found or [i for i, cell in enumerate(header) if "loss" in cell]
        if not found or (len(found) > 1 and header[found[0]] not in _LOSSES):
            what = "no column that is a loss" if not found else "several columns that may be the loss"
            raise InputError("no_loss", f"{name} has {what}; it has {there}.", remedy="Name it with --column.")
        of = found[0]
    at = next((header.index(known) for known in _STEPS if known in header and header.index(known) != of), None)
    if at is None:
        raise InputError("no_step", f"{name} has no column of steps; it has {there}.", remedy="Call it step or epoch.")
    return at, of, next((header.index(known) for known in _CLOCKS if known in header), None)


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.strip().lower()).strip("_")


def _pace(steps: Sequence[float], times: Sequence[float | None]) -> float | None:
    """Return the seconds of one step, by the median: a pause in between is no part of it."""
    known = [(step, time) for step, time in zip(steps, times, strict=True) if time is not None]
    paces = [(later[1] - sooner[1]) / (later[0] - sooner[0]) for sooner, later in pairwise(known)]
    pace = median(paces) if paces else 0.0
    return pace if pace > 0 and math.isfinite(pace) else None


def _at(row: Sequence[str], column: int | None) -> str:
    return row[column] if column is not None and column < len(row) else ""


def _float(text: object) -> float | None:
    try:
        return float(str(text))
    except ValueError:
        return None


def _number(value: object, where: str, what: str) -> float:
    """Return a finite number. Raise InputError, saying where, if it is none."""
    found = _float(value)
    if found is None:
        shown = "".join(c if c.isprintable() else "?" for c in str(value))[:40]
        raise InputError("no_number", f"{where} has a {what} of “{shown}”, which is no number.")
    if not math.isfinite(found):
        raise InputError(
            "not_finite",
            f"{where} has a {what} of {found}, which is no finite number.",
            remedy="A loss that overflowed follows no law; leave such points out.",
        )
    return found
