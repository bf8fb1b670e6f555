"""What people may order of candidates; the command line uses the same when no daemon runs."""

from __future__ import annotations

from clinic_ai.control.promotion_views import ApproveOrder, CanaryOrder, PromoteOrder
from clinic_ai.control.services import CanaryPort, PromotionsPort, RunsPort
from clinic_ai.control.views import DoneView
from clinic_ai.errors import Conflict
from clinic_ai.gating import GateReport
from clinic_ai.promoting import CanaryResult, PromotionRecord
from clinic_ai.store.database import Database
from clinic_ai.training.records import record_of


class PromotionDesk:
    """Candidates for one person, by name in the audit."""

    def __init__(
        self, database: Database, promotions: PromotionsPort, runs: RunsPort, canary: CanaryPort | None, actor: str
    ) -> None:
        self._database = database
        self._promotions = promotions
        self._runs = runs
        self._canary = canary
        self._actor = actor

    def check_model(self, plugin: str, name: str, version: str) -> GateReport:
        """Hold a candidate against the model in use, on the test patients of its dataset. Raise NotFound, Conflict."""
        return self._runs.examine(plugin, name, version)

    def approve_model(self, order: ApproveOrder) -> DoneView:
        """Approve a candidate in the name of a person. Raise NotFound, NotAllowed or Conflict."""
        approval, _ = self._promotions.approve(
            order.plugin, order.name, order.version, user=self._actor, wanted=order.reviewer, reason=order.reason
        )
        words = f"{order.plugin} {order.name} {order.version}"
        return DoneView(
            sentence=f"{approval.name} has approved the candidate {words}; an administrator makes it active with "
            f"`clinic-ai model promote {words}`."
        )

    def promote_model(self, order: PromoteOrder) -> DoneView:
        """Make a model the active one of its slot. Raise NotFound, NotAllowed, Conflict or ModelError."""
        ref = self._promotions.promote(
            order.plugin, order.name, order.version, user=self._actor, wanted=order.reviewer, reason=order.reason
        )
        return DoneView(sentence=f"{ref.label()} is now the active model of {ref.plugin}, slot {ref.slot}.")

    def run_canary(self, order: CanaryOrder) -> CanaryResult:
        """Run a candidate in the shadow on studies of late. Raise NotFound, Conflict or ModelError."""
        if self._canary is None:
            raise Conflict(
                "A candidate runs in the shadow beside the appliance at work, and no daemon runs.",
                remedy="Start it with `clinic-ai run`, or `systemctl start clinic-ai`.",
            )
        return self._canary.run(order.plugin, order.name, order.version, hours=order.hours, most=order.most)

    def model_record(self, plugin: str, name: str, version: str) -> PromotionRecord:
        """Return what stands behind a model. Raise NotFound."""
        return record_of(self._database, plugin, name, version)
