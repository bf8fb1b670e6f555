"""The record of a promotion, or the plan of one that nobody approved yet: all that stands behind a candidate."""

from __future__ import annotations

import time

from clinic_ai.domain import Spent
from clinic_ai.promoting import CanaryRecord, DatasetRecord, PromotionRecord, Shadow
from clinic_ai.store import datasets, expenses, gates, models, origins, shadows
from clinic_ai.store.database import Database


def record_of(database: Database, plugin: str, name: str, version: str) -> PromotionRecord:
    """Return what is on record of a model. Raise NotFound if the registry has none of that name."""
    with database.read() as connection:
        model = models.get_model(connection, plugin, name, version)
        report = gates.newest_report(connection, plugin, name, version)
        origin = origins.origin_of(connection, model.digest)
        activations = tuple(gates.activations_of(connection, plugin, name, version))
        promoted = [one.approval_id for one in activations if one.approval_id is not None]
        approval = gates.find_approval(connection, promoted[-1]) if promoted else None
        if approval is None and report is not None:
            approval = gates.approval_of(connection, report.report_id)
        seen = shadows.shadows_of(connection, model.digest)
        dataset_id = origin.dataset_id if origin is not None else report.dataset_id if report is not None else ""
        spent = expenses.of_run(connection, origin.run_id) if origin is not None else Spent()
        dataset = datasets.find_view(connection, dataset_id)
        in_use = tuple(active.ref for active in models.active_models(connection, plugin))
    return PromotionRecord(
        model=model.ref,
        state=model.state,
        files=model.manifest.files,
        licence=model.licence,
        source=model.manifest.source,
        intended_use=model.manifest.intended_use,
        quantisation=model.manifest.quantisation,
        in_use=in_use,
        origin=origin,
        dataset=None
        if dataset is None
        else DatasetRecord(
            dataset_id=dataset.dataset_id,
            digest=dataset.digest,
            images=dataset.images,
            patients=dataset.patients,
            lineage=dataset.lineage,
        ),
        report=report,
        approval=approval,
        activations=activations,
        canary=_canary(seen),
        spent=spent,
        rollback=f"clinic-ai model rollback {plugin} --slot {model.slot}",
        written_at=time.time(),
    )


def _canary(seen: list[Shadow]) -> CanaryRecord | None:
    if not seen:
        return None
    documents = [shadow.document for shadow in seen]
    return CanaryRecord(
        studies=len(seen),
        differing=sum(document.differs for document in documents),
        largest_change=max(document.largest_change for document in documents),
        stricter=sum(document.guard_after.severity > document.guard_before.severity for document in documents),
        first_at=min(shadow.at for shadow in seen),
        last_at=max(shadow.at for shadow in seen),
    )
