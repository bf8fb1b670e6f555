"""Candidates on their way to be in use: reports of their examinations, approvals by name, and what shadows said.

Rows are never changed; of a candidate's reports the newest counts.
"""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select

from clinic_ai.domain import ModelRef, ModelState, new_id
from clinic_ai.errors import Conflict, ModelError
from clinic_ai.gating import GateReport
from clinic_ai.promoting import Activation, Approval
from clinic_ai.store.audit import record
from clinic_ai.store.models import ModelView, Then, active_models
from clinic_ai.store.tables import activations, approvals, gate_reports

# ---------------------------------------------------------------- reports


def add_report(connection: Connection, report: GateReport, *, of: ModelRef) -> None:
    """Store what came of the examination of a model. Raise ModelError if it was another that was examined."""
    if report.digest != of.digest:
        raise ModelError(
            f"{of.label()} is not what was examined, whose digest begins {report.digest[:12]}: it changed meanwhile.",
            remedy="Resume the run; it examines what it makes again.",
        )
    connection.execute(
        insert(gate_reports).values(
            report_id=report.report_id,
            plugin=report.plugin,
            name=report.name,
            version=report.version,
            digest=report.digest,
            incumbent=report.incumbent.digest if report.incumbent is not None else "",
            dataset_id=report.dataset_id,
            passed=int(report.passed),
            document=report.model_dump_json(),
            at=report.at,
        )
    )
    record(
        connection,
        actor="clinic-ai",
        action="model.examined",
        subject=_subject(report.plugin, report.name, report.version),
        details={
            "report": report.report_id,
            "digest": report.digest,
            "incumbent": report.incumbent.digest if report.incumbent is not None else "",
            "dataset": report.dataset_id,
            "passed": report.passed,
        },
    )


def entering(report: GateReport) -> Then:
    """Return what stores a report as its candidate is entered."""

    def enter(connection: Connection, candidate: ModelRef) -> None:
        add_report(connection, report, of=candidate)

    return enter


def newest_report(connection: Connection, plugin: str, name: str, version: str) -> GateReport | None:
    """Return the report of the last examination of a model, None if it never was examined."""
    query = (
        select(gate_reports.c.document)
        .where(gate_reports.c.plugin == plugin, gate_reports.c.name == name, gate_reports.c.version == version)
        .order_by(gate_reports.c.at.desc(), gate_reports.c.report_id.desc())
    )
    text = connection.execute(query.limit(1)).scalar()
    return None if text is None else GateReport.model_validate_json(text)


def others_tried(connection: Connection, plugin: str, incumbent: str, digest: str) -> int:
    """Return how many other models were held against the same model in use; ``incumbent`` is its digest, "" none."""
    query = select(func.count(gate_reports.c.digest.distinct())).where(
        gate_reports.c.plugin == plugin, gate_reports.c.incumbent == incumbent, gate_reports.c.digest != digest
    )
    return int(connection.execute(query).scalar_one()) if incumbent else 0


# ---------------------------------------------------------------- approvals


def approve(
    connection: Connection, model: ModelView, *, name: str, actor: str, reason: str = ""
) -> tuple[Approval, GateReport]:
    """Note that a named person wants a candidate to be in use, having seen its newest report.

    The same again changes nothing. Raise Conflict if it is no candidate, or its report does not permit it.
    """
    report = standing_report(connection, model)
    earlier = approval_of(connection, report.report_id)
    if earlier is not None and earlier.name == name:
        return earlier, report
    made = Approval(
        approval_id=new_id("P"), report_id=report.report_id, name=name, actor=actor, reason=reason, at=time.time()
    )
    connection.execute(insert(approvals).values(**made.model_dump()))
    details = {"approval": made.approval_id, "report": report.report_id, "person": name}
    record(connection, actor=actor, action="model.approved", subject=_words_of(model), details=details)
    return made, report


def approved(connection: Connection, model: ModelView) -> str:
    """Return the id of the approval that a candidate becomes active on. Raise Conflict if it may not."""
    report = standing_report(connection, model)
    approval = approval_of(connection, report.report_id)
    if approval is None:
        words = f"{model.plugin} {model.name} {model.version}"
        raise Conflict(
            f"Nobody has approved the candidate {_words_of(model)}; it passed its examination.",
            remedy=f"`clinic-ai model promote {words} --as NAME` approves and promotes it in the name of a person; "
            f"`clinic-ai model record {words}` shows what changes.",
        )
    return approval.approval_id


def passed_alone(connection: Connection, model: ModelView) -> None:
    """Permit a candidate that passed without any doubt, where the clinic asks for no approval. Raise Conflict else."""
    report = standing_report(connection, model)
    if report.doubts:
        raise Conflict(
            f"The candidate {_words_of(model)} passed its examination with a doubt: {report.doubts[0]}",
            remedy=f"Look at it, then `clinic-ai model promote {model.plugin} {model.name} {model.version} --as NAME`.",
        )


def approval_of(connection: Connection, report_id: str) -> Approval | None:
    """Return the newest approval of a report, None if nobody approved it."""
    query = select(approvals).where(approvals.c.report_id == report_id).order_by(approvals.c.at.desc())
    row = connection.execute(query.limit(1)).first()
    return None if row is None else _approval(row)


def find_approval(connection: Connection, approval_id: str) -> Approval | None:
    """Return an approval by its id, None if there is none of it."""
    row = connection.execute(select(approvals).where(approvals.c.approval_id == approval_id)).first()
    return None if row is None else _approval(row)


def standing_report(connection: Connection, model: ModelView) -> GateReport:
    """Return the newest report of a candidate if it permits to promote it now.

    Raise Conflict if the model is no candidate, was never examined, did not pass, or was held against another model
    than the one that is in use now.
    """
    words = f"{model.plugin} {model.name} {model.version}"
    if model.state is not ModelState.CANDIDATE:
        raise Conflict(
            f"The model {_words_of(model)} is {model.state.value}; only a candidate is approved.",
            remedy=f"An administrator makes other models active with `clinic-ai model promote {words}`.",
        )
    report = newest_report(connection, model.plugin, model.name, model.version)
    if report is None or report.digest != model.digest:
        raise Conflict(
            f"The candidate {_words_of(model)} was never held against the model in use.",
            remedy=f"`clinic-ai model check {words}` does so.",
        )
    if not report.passed:
        raise Conflict(
            f"The candidate {_words_of(model)} did not pass its examination: {' '.join(report.reasons)}",
            remedy=f"Train again with more or better labels; `clinic-ai model record {words}` shows all figures.",
        )
    if not _is_current(connection, model, report):
        before = report.incumbent.label() if report.incumbent is not None else "no model"
        raise Conflict(
            f"The candidate {_words_of(model)} was held against {before}, and another is in use by now.",
            remedy=f"`clinic-ai model check {words}` holds it against the one in use.",
        )
    return report


def _is_current(connection: Connection, model: ModelView, report: GateReport) -> bool:
    """Whether what the candidate was held against is what stands in its slot now; behind no adapter stands the base."""
    digests = {m.slot: m.digest for m in active_models(connection, model.plugin)}
    against = report.incumbent.digest if report.incumbent is not None else None
    if model.slot in digests:
        return against == digests[model.slot]
    return against in {None, model.manifest.base_digest}


# ---------------------------------------------------------------- promotions


def activations_of(connection: Connection, plugin: str, name: str, version: str) -> list[Activation]:
    """Return when a model became active, oldest first."""
    query = (
        select(activations)
        .where(activations.c.plugin == plugin, activations.c.name == name, activations.c.version == version)
        .order_by(activations.c.activation_id)
    )
    return [
        Activation(kind=row.kind, at=row.at, by=row.by, approval_id=row.approval_id)
        for row in connection.execute(query)
    ]


def _approval(row: Row[Any]) -> Approval:
    return Approval(
        approval_id=row.approval_id,
        report_id=row.report_id,
        name=row.name,
        actor=row.actor,
        reason=row.reason,
        at=row.at,
    )


def _words_of(model: ModelView) -> str:
    return _subject(model.plugin, model.name, model.version)


def _subject(plugin: str, name: str, version: str) -> str:
    return f"{plugin}/{name}/{version}"
