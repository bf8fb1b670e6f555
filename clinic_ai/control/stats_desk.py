"""What is asked and answered about the layers of a model and the memory of its training."""

from __future__ import annotations

from fastapi import APIRouter

from clinic_ai.control.asking import Administrator, Having
from clinic_ai.control.slowly import ORDERS, slowly
from clinic_ai.control.stats_views import StatsOrder, StatsView
from clinic_ai.training.stats import Stats

router = APIRouter(prefix="/v1/models", tags=["models"])


class StatsDesk:
    """Descriptions of models; the CLI uses the same when no daemon runs."""

    def __init__(self, stats: Stats) -> None:
        self._stats = stats

    def model_stats(self, order: StatsOrder) -> StatsView:
        """Describe a model. Raise NotFound, Conflict, ModelError or ChildError."""
        model = None if order.name is None or order.version is None else (order.name, order.version)
        found = self._stats.describe(order.plugin, model, order.recipe, order.gpu_memory_mb)
        return StatsView.model_validate(found)


@router.post("/stats")
@slowly(ORDERS)
def describe(order: StatsOrder, services: Having, person: Administrator) -> StatsView:  # noqa: ARG001 - the role
    """Say what a model is made of and what its training would take, before anything is loaded."""
    stats = Stats(services.registry, services.catalogue.manifests, services.crew, services.settings().training)
    return StatsDesk(stats).model_stats(order)
