"""The client of candidates."""

from __future__ import annotations

from clinic_ai.control.client import BENCH_S, LONG_S, Client
from clinic_ai.control.model_views import ModelChoice
from clinic_ai.control.promotion_views import ApproveOrder, CanaryOrder, PromoteOrder
from clinic_ai.control.views import DoneView
from clinic_ai.gating import GateReport
from clinic_ai.promoting import CanaryResult, PromotionRecord


class PromotionClient(Client):
    """Talks to the daemon of one home about candidates; raises what ``Client`` raises."""

    def check_model(self, plugin: str, name: str, version: str) -> GateReport:
        """Hold a candidate against the model in use. Raise NotFound or Conflict."""
        order = ModelChoice(plugin=plugin, name=name, version=version)
        return self._post("/v1/models/check", order, GateReport, timeout_s=BENCH_S)

    def approve_model(self, order: ApproveOrder) -> DoneView:
        """Approve a candidate in the name of a person. Raise NotFound, NotAllowed or Conflict."""
        return self._post("/v1/models/approve", order, DoneView)

    def promote_model(self, order: PromoteOrder) -> DoneView:
        """Make a model the active one of its slot. Raise NotFound, NotAllowed, Conflict or ModelError."""
        return self._post("/v1/models/promote", order, DoneView, timeout_s=LONG_S)

    def run_canary(self, order: CanaryOrder) -> CanaryResult:
        """Run a candidate in the shadow on studies of late. Raise NotFound, Conflict or ModelError."""
        return self._post("/v1/models/canary", order, CanaryResult, timeout_s=BENCH_S)

    def model_record(self, plugin: str, name: str, version: str) -> PromotionRecord:
        """Return what stands behind a model. Raise NotFound."""
        query = {"plugin": plugin, "name": name, "version": version}
        return self._get("/v1/models/record", PromotionRecord, query)
