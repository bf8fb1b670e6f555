"""The route of forecasts: what a training run would bring if it went on. It changes nothing."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from clinic_ai.control.asking import Having, Id
from clinic_ai.control.forecast_views import ForecastOrder, ForecastView
from clinic_ai.control.slowly import ORDERS, slowly

router = APIRouter(tags=["training"])


@router.get("/v1/runs/{run_id}/forecast")
@slowly(ORDERS)
def get_forecast(run_id: Id, order: Annotated[ForecastOrder, Query()], services: Having) -> ForecastView:
    """Fit the scaling law to the loss of a run, in a child process, and say how sure it is and what more would cost."""
    return ForecastView.model_validate(services.forecasts.of_run(run_id, order.wish()))
