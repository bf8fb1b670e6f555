"""What a run leaves while it goes on: its history and best epochs as tables, and from time to time the loss figure."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Sequence
from pathlib import Path

from clinic_ai.ml.checkpoints import write_durably

HISTORY, BEST, FIGURES = "training_history.csv", "best_results.csv", "figures"
LOSS_FIGURE = "loss.png"
_DRAWN_EVERY_S = 60.0

History = Sequence[dict[str, float]]
"""An entry for each epoch: its number as ``epoch``, its loss, and the plugin's metrics."""


class Record:
    """The record of one run in its directory; every file is there in full or as it was before."""

    def __init__(self, directory: Path, metric: str, metric_name: str, *, least: bool = False) -> None:
        """``metric`` is the key of the history that the best epoch is chosen by; the ``least`` is best, or the most."""
        self._directory, self._metric, self._name, self._least = directory, metric, metric_name, least
        self._drawn_at = time.monotonic()

    def write(self, history: History, best_epoch: int) -> None:
        """Write both tables, and once a minute the figure; called after each epoch and when a run is taken up."""
        write_durably(self._directory / HISTORY, table(history))
        write_durably(self._directory / BEST, table(self.best(history)))
        if history and time.monotonic() - self._drawn_at > _DRAWN_EVERY_S:
            self.draw(history, best_epoch)

    def best(self, history: History) -> list[dict[str, float]]:
        """Return the epochs that were better than all before them; the last one is the best of all."""
        found, bound = [], math.inf
        for entry in history:
            value = entry[self._metric] if self._least else -entry[self._metric]
            if value < bound:
                found.append(entry)
                bound = value
        return found

    def draw(self, history: History, best_epoch: int) -> bytes:
        """Write the loss figure; return it as PNG."""
        from clinic_ai.ml.figures import loss_figure

        drawn = loss_figure(history, metric=self._metric, metric_name=self._name, best_epoch=best_epoch)
        (self._directory / FIGURES).mkdir(exist_ok=True)
        write_durably(self._directory / FIGURES / LOSS_FIGURE, drawn)
        self._drawn_at = time.monotonic()
        return drawn


def table(history: History) -> bytes:
    """Return the history as CSV: a line per epoch with all its figures."""
    text = io.StringIO()
    columns = list(dict.fromkeys(key for entry in history for key in entry))
    lines = csv.DictWriter(text, fieldnames=columns, lineterminator="\n")
    lines.writeheader()
    lines.writerows({**entry, "epoch": int(entry["epoch"])} for entry in history)
    return text.getvalue().encode()
