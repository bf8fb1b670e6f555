"""The route that shows all models with what stands on their manifests."""

from __future__ import annotations

from fastapi import APIRouter

from clinic_ai.control.asking import Having
from clinic_ai.control.shelf_views import ShelfModel, ShelfView, SlotView
from clinic_ai.gating import GateReport
from clinic_ai.promoting import Approval
from clinic_ai.store import gates, models
from clinic_ai.store.models import ModelView

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("/shelf")
def get_shelf(services: Having) -> ShelfView:
    """Return all models with what they may be used for, and what a rollback of each slot leads to."""
    with services.database.read() as connection:
        found = models.list_models(connection)
        examined = {m.digest: gates.newest_report(connection, m.plugin, m.name, m.version) for m in found}
        # A report of another digest is of another model that had the same name.
        reports = {digest: one for digest, one in examined.items() if one is not None and one.digest == digest}
        approvals = {digest: gates.approval_of(connection, one.report_id) for digest, one in reports.items()}
        slots = sorted({(model.plugin, model.slot) for model in found})
        before = {each: models.previous(connection, *each) for each in slots}
    active = {(model.plugin, model.slot): _label(model) for model in found if model.state.value == "ACTIVE"}
    labels = {model.digest: _label(model) for model in found}
    return ShelfView(
        models=tuple(
            _row(model, labels, reports.get(model.digest), approvals.get(model.digest)) for model in reversed(found)
        ),
        slots=tuple(
            SlotView(
                plugin=each[0], slot=each[1], active=active.get(each), before=None if last is None else _label(last)
            )
            for each, last in before.items()
        ),
    )


def _row(model: ModelView, labels: dict[str, str], report: GateReport | None, approval: Approval | None) -> ShelfModel:
    manifest = model.manifest
    base = manifest.base_digest
    listed = {name: getattr(model, name) for name in ("plugin", "slot", "name", "version", "digest", "reference")}
    return ShelfModel(
        **listed,
        state=model.state.value,
        licence=model.licence,
        clinical_use=model.clinical_use,
        conditions=model.conditions,
        tier=model.tier,
        imported_at=model.imported_at,
        imported_by=model.imported_by,
        commercial_use=manifest.commercial_use,
        source=manifest.source,
        intended_use=manifest.intended_use,
        quantisation=manifest.quantisation,
        base="" if base is None else labels.get(base, base[:12]),
        size_bytes=sum(file.size_bytes for file in manifest.files),
        validation=manifest.validation,
        examined="" if report is None else "passed" if report.passed else "refused",
        approved_by="" if approval is None else approval.name,
    )


def _label(model: ModelView) -> str:
    return f"{model.name} {model.version}"
