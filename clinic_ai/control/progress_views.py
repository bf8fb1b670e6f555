"""What is answered about how a training run went: its loss and its metrics, a point for each step or epoch."""

from __future__ import annotations

from clinic_ai.control.views import View


class SeriesView(View):
    """One figure along a run, at most 500 points of (epochs done, value)."""

    name: str
    points: tuple[tuple[float, float], ...]


class HistoryView(View):
    """The figures of a run so far. ``epochs`` is how many it is to have, 0: nobody knows.

    The series "step loss" has the loss of single steps, as far as this daemon saw them; the others have a point for
    each epoch. ``note`` says why there are none, or fewer than there should be.
    """

    run_id: str
    epochs: int
    series: tuple[SeriesView, ...]
    note: str = ""
