"""The client of the night and of the shelf of models, as the terminal shows them."""

from __future__ import annotations

from clinic_ai.control.client import Client, segment
from clinic_ai.control.night_views import TonightView
from clinic_ai.control.progress_views import HistoryView
from clinic_ai.control.shelf_views import ShelfView


class NightClient(Client):
    """Talks to the daemon of one home about its nights and models; raises what ``Client`` raises."""

    def outlook(self) -> TonightView:
        """Return what ``tonight`` does, without asking a trainer what a run that nobody planned yet would cost."""
        return self._get("/v1/runs/outlook", TonightView)

    def run_history(self, run_id: str) -> HistoryView:
        """Return the loss and the metrics of a run so far. Raise NotFound."""
        return self._get(f"/v1/runs/{segment(run_id, 'training run')}/history", HistoryView)

    def shelf(self) -> ShelfView:
        """Return all models with what they may be used for, and what a rollback of each slot leads to."""
        return self._get("/v1/models/shelf", ShelfView)
