"""Results that persons decided about, stored as the appliance stores them, without guard or renderer."""

from __future__ import annotations

from sqlalchemy import Connection

from clinic_ai.domain import Audience, GuardAction, GuardVerdict, Job, JobKind, Presence, StoredFile
from clinic_ai.domain.reviews import Review, ReviewDecision, ReviewDocument, ReviewLabel, SignOff
from clinic_ai.store import artefacts, jobs, reviews

REVIEWER = "Dr. Ada Example"
ACTOR = "ada"


def verdict(action: GuardAction = GuardAction.ALLOW) -> GuardVerdict:
    """Return a verdict that releases nothing."""
    return GuardVerdict(
        audience=Audience.CLINICIAN, action=action, decisions=(), released=(), policy_hash="b" * 64, policy_name="p"
    )


def add_reported(c: Connection, study_id: str) -> str:
    """Store a released artefact with a file; return its id."""
    artefact_id, _ = artefacts.add_artefact(c, _rendered(c, study_id, JobKind.REPORT, "1" * 64), verdict())
    return artefact_id


def decide(
    c: Connection, artefact_id: str, decision: ReviewDecision = ReviewDecision.ACCEPT, *, at: float | None = None
) -> Review:
    """Store a decision with a label; ``at`` is UTC seconds. Its job, if it has one, waits."""
    artefact = artefacts.get_artefact(c, artefact_id)
    job_id = None
    if decision.signs:
        job_id = jobs.add_job(c, kind=JobKind.SIGN, study_id=artefact.study_id, version=artefact.version)
    review = reviews.new_review(
        artefact,
        decision,
        reviewer=REVIEWER,
        actor=ACTOR,
        reason="",
        digest="0" * 64,
        document=ReviewDocument(),
        consent=False,
        job_id=job_id,
    )
    if at is not None:
        review = review.model_copy(update={"decided_at": at})
    label = ReviewLabel(instance_sha256="9" * 64, condition="pneumonia", presence=Presence.PRESENT, corrected=False)
    reviews.add_review(c, review, [label])
    artefacts.mark_reviewed(c, artefact, review)
    return review


def sign(c: Connection, review: Review) -> str:
    """Store the FINAL artefact that a decision leads to; return its id."""
    job = _rendered(c, review.study_id, JobKind.SIGN, "2" * 64)
    off = SignOff(
        review_id=review.review_id, name=review.reviewer, at=review.decided_at, revision=1, replaces=0, amended=False
    )
    return artefacts.add_signed(c, job, verdict(), review, off)


def _rendered(c: Connection, study_id: str, kind: JobKind, sha256: str) -> Job:
    job_id = jobs.add_job(c, kind=kind, study_id=study_id, version=1)
    file = StoredFile(name="report.pdf", sha256=sha256, size_bytes=9, media_type="application/pdf")
    jobs.save_files(c, job_id, [file])
    return jobs.get_job(c, job_id)
