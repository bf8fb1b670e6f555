"""Carries out what a person signed: guard, renderer, and a FINAL artefact that takes the reviewed one's place.

The decision was stored before, in a transaction of its own. Whatever ends this job in the middle, it runs again; until
its own transaction nothing is FINAL.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from sqlalchemy import Connection

from clinic_ai.domain import GuardAction, GuardVerdict, Job, JobKind, ModelRef, WaitReason
from clinic_ai.domain.reviews import Passage, ReviewDecision, SignOff
from clinic_ai.errors import ClinicError, Conflict
from clinic_ai.results.passages import digest_of, statements_for
from clinic_ai.results.rendering import material_of
from clinic_ai.results.reporting import OUTBOX, ReportRunner
from clinic_ai.store import alerts, artefacts, jobs, reviews, studies
from clinic_ai.store.database import Database

REPORT_SR = "report.sr.dcm"


class SignRunner:
    """Does the jobs of kind ``sign``."""

    kind = JobKind.SIGN

    def __init__(self, database: Database, reports: ReportRunner) -> None:
        self._database = database
        self._reports = reports

    def obstacles(self, plugins: Collection[str], at_work: Collection[str]) -> Mapping[str, WaitReason]:
        """Return why signed reports wait: what keeps other reports."""
        return self._reports.obstacles(plugins, at_work)

    def pin(self, plugin: str) -> tuple[tuple[ModelRef, ...], str]:
        """Return the active policy."""
        return self._reports.pin(plugin)

    def run(self, job: Job) -> Callable[[Connection], None]:
        """Guard and render what was signed. Raise ClinicError if that fails, or if the guard would alter a word."""
        with self._database.read() as connection:
            review = reviews.review_of_job(connection, job.job_id)
            if review is None or not review.decision.signs:
                raise Conflict("Nobody decided what this job was to carry out.")
            reviewed = artefacts.get_artefact(connection, review.artefact_id)
            material = material_of(connection, job.study_id, job.version)
            revision = reviews.next_revision(connection, job.study_id, job.version)
            versions = artefacts.artefacts_of(connection, job.study_id, job.version)
            reported_at = min(jobs.get_job(connection, found.job_id).created_at for found in versions)
        statements = statements_for(review.document.said, material)
        verdict = self._reports.judged(job, material, statements, review.reviewer)
        check_verbatim(review.document.said, verdict)
        if review.decision is ReviewDecision.ACCEPT and review.digest != digest_of(
            reviewed.artefact_id, verdict.released, (), verdict, material.findings
        ):
            raise Refused(
                f"Artefact {reviewed.artefact_id} reads otherwise now than when {review.reviewer} accepted it: the "
                "words are the same, the notes, the marks or the policy pack are not.",
                remedy=f"Look at it again with `clinic-ai review show {reviewed.artefact_id}` and decide anew.",
            )
        sign = SignOff(
            review_id=review.review_id,
            name=review.reviewer,
            at=review.decided_at,
            revision=revision,
            replaces=reviewed.revision if any(file.name == REPORT_SR for file in reviewed.files) else None,
            amended=bool(review.document.diff),
            corrections=review.document.corrections,
        )
        files = self._reports.press.render(job, replace(material, reported_at=reported_at), verdict, sign)

        def commit(connection: Connection) -> None:
            jobs.save_files(connection, job.job_id, files)
            artefact_id = artefacts.add_signed(connection, job, verdict, review, sign)
            artefacts.add_delivery(connection, artefact_id, OUTBOX)
            studies.set_wait(connection, job.study_id, job.version, None)
            alerts.withdraw(connection, "not_signed", job.study_id)

        return commit


def check_verbatim(said: Collection[Passage], verdict: GuardVerdict) -> None:
    """Raise Refused unless the guard released these words and no others: what is signed is what was decided."""
    if verdict.action.severity >= GuardAction.HOLD.severity:
        raise Refused(f"The guard does not release it: {reasons(verdict)}")
    if [(r.statement_id, r.text) for r in verdict.released] != [(p.statement_id, p.text) for p in said]:
        raise Refused(f"The guard would change the words: {reasons(verdict)}")


def reasons(verdict: GuardVerdict) -> str:
    """Return which rules object to which statements; nothing of the statements' words."""
    strict = [d for d in verdict.decisions if d.action.severity > GuardAction.ANNOTATE.severity]
    lines = dict.fromkeys(f"[{d.statement_id or 'all'}] {d.rule}: {d.reason}" for d in strict)
    return " ".join(f"{line.rstrip('.')}." for line in lines) or "it gave no reason."


class Refused(ClinicError):
    """The guard does not let a person's words out as they are. The person has to change them."""
