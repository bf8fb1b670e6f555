"""How a training run is followed: a bar that moves in a terminal, a line per change elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

import typer

from clinic_ai.cli.output import age

if TYPE_CHECKING:
    from rich.console import Console

    from clinic_ai.control.views import RunRow


class Follower(Protocol):
    """Shows where a run stands; used in a ``with`` statement."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    def show(self, row: RunRow) -> None:
        """Show where the run stands now."""

    def note(self, text: str) -> None:
        """Show a sentence that stays."""


def follower(*, document: bool = False) -> Follower:
    """Return what fits standard output: a bar in a terminal that can draw one, else lines.

    ``document``: standard output is for a document, so that only why a run waits is said, on the other one.
    """
    if document:
        return Reasons()
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        return Bar()
    return Lines()


class _Printed:
    """What prints a line whenever there is news; ``_last`` is what was news last."""

    def __init__(self) -> None:
        self._last = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """There is nothing to clean up."""


class Lines(_Printed):
    """A line whenever something has changed."""

    def show(self, row: RunRow) -> None:
        """Print where the run stands if that is news."""
        line = f"{row.run_id}  {row.state}  {row.error or words_of(row.progress)}".rstrip()
        if line != self._last:
            typer.echo(line)
            self._last = line

    def note(self, text: str) -> None:
        """Print a sentence."""
        typer.echo(text)


class Reasons(_Printed):
    """A line on standard error for each reason that a run waits for: who reads a document later sees it now."""

    def show(self, row: RunRow) -> None:
        """Say why the run waits unless that was said last; the figures of a reason change all the time."""
        if row.pause_code and row.pause_code != self._last:
            typer.echo(f"{row.run_id} waits. {row.error}", err=True)
        self._last = row.pause_code

    def note(self, text: str) -> None:
        """Say nothing: the document has it."""


class Bar:
    """A progress bar with epoch, loss, metric and time left; gone when the run is over."""

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[figures]}", markup=False),
            console=console,
            transient=True,
            expand=True,
            auto_refresh=False,  # it is drawn whenever somebody has looked how the run stands
        )
        self._clock = clock
        self._task = self._bar.add_task("", total=None, figures="")
        self._last: dict[str, Any] | None = None
        self._since = clock()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._bar.stop()

    def show(self, row: RunRow) -> None:
        """Move the bar to where the run stands; between two reports the time left goes on."""
        if row.progress != self._last:
            self._last, self._since = row.progress, self._clock()
        progress = row.progress or {}
        figures = _figures(progress)
        if progress.get("eta_s") is not None:
            figures.append(f"{age(progress['eta_s'] - (self._clock() - self._since))} left")
        self._bar.update(
            self._task,
            description=_description(row, progress),
            total=progress.get("steps") or None,
            completed=progress.get("step", 0),
            figures=", ".join(figures),
            refresh=True,
        )

    def note(self, text: str) -> None:
        """Print a sentence above the bar."""
        self._bar.console.print(text, markup=False, highlight=False)


_WAITS = {"PLANNED": "waits for its turn", "RUNNING": "starts", "PAUSED": "is paused"}


def _description(row: RunRow, progress: dict[str, Any]) -> str:
    if row.state != "RUNNING" and row.error:
        return row.error
    return str(progress.get("message") or (_epoch(progress) if progress else _WAITS[row.state]))


def words_of(progress: dict[str, Any] | None) -> str:
    """Return where a run stands, in words; empty if it has reported nothing yet."""
    if progress is None:
        return ""
    if progress.get("message") and not progress.get("step"):
        return str(progress["message"])
    parts = [f"{_epoch(progress)}, step {progress['step']}/{progress['steps']}", *_figures(progress)]
    if progress.get("message"):
        parts.append(progress["message"])
    if progress.get("eta_s") is not None:
        parts.append(f"{age(progress['eta_s'])} to go")
    return ", ".join(parts)


def _epoch(progress: dict[str, Any]) -> str:
    return f"epoch {progress['epoch']}/{progress['epochs']}"


def _figures(progress: dict[str, Any]) -> list[str]:
    parts = []
    if progress.get("loss") is not None:
        parts.append(f"loss {progress['loss']:.4f}")
    if progress.get("metric") is not None:
        parts.append(f"{progress.get('metric_name') or 'metric'} {progress['metric']:.3f}")
    for key, form in (("memory_mb", "{} MiB"), ("temperature_c", "{:.0f} °C"), ("power_w", "{:.0f} W")):
        if progress.get(key) is not None:
            parts.append(form.format(progress[key]))
    return parts
