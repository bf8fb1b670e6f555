"""The routes that show the night to everybody: what is planned, and how a run went. They start nothing."""

from __future__ import annotations

from fastapi import APIRouter

from clinic_ai.control.asking import Having
from clinic_ai.control.night_views import TonightView
from clinic_ai.control.progress_views import HistoryView

router = APIRouter(prefix="/v1/runs", tags=["training"])


@router.get("/outlook")
def get_outlook(services: Having) -> TonightView:
    """Say what will be trained in the next window, and why or why not; what it costs only as far as that is known."""
    return TonightView.model_validate(services.night.outlook())


@router.get("/{run_id}/history")
def get_history(run_id: str, services: Having) -> HistoryView:
    """Return the loss and the metrics of a run so far, at most 500 points of each."""
    return HistoryView.model_validate(services.runs.history(run_id))
