"""Images with reviews of their results, stored as the review rooms store them."""

from __future__ import annotations

from school import School, tiny_png
from sqlalchemy import Connection

from clinic_ai.domain import (
    Audience,
    GuardAction,
    GuardVerdict,
    JobKind,
    PatientIdentity,
    Presence,
    StudyFacts,
)
from clinic_ai.domain.reviews import ReviewDecision, ReviewDocument, ReviewLabel
from clinic_ai.store import artefacts, jobs, reviews, studies

EMPTY = ReviewDocument()


def reviewed(
    school: School,
    number: int,
    presence: Presence = Presence.PRESENT,
    *,
    consent: bool = True,
    decision: ReviewDecision = ReviewDecision.ACCEPT,
) -> tuple[str, str]:
    """Store an image with a review of its result; return its hash and the review."""
    objects = school.runs.datasets._deidentifier.objects
    sha256, _ = objects.write_bytes(tiny_png(f"reviewed {number}"))
    with school.database.write() as c:
        study_id = studies.open_study(
            c,
            grouping_key=f"1.2.{number}",
            study_instance_uid="1.2",
            pseudonym="P-A",
            patient_key=f"{number:064x}",
            source="inbox",
            facts=StudyFacts(),
            identity=PatientIdentity(patient_id=f"P-{number}"),
        )
        return sha256, review_again(c, study_id, sha256, presence, consent, decision)


def review_again(
    c: Connection, study_id: str, sha256: str, presence: Presence, consent: bool, decision: ReviewDecision
) -> str:
    job = jobs.get_job(c, jobs.add_job(c, kind=JobKind.REPORT, study_id=study_id, version=1))
    verdict = GuardVerdict(
        audience=Audience.CLINICIAN,
        action=GuardAction.ALLOW,
        decisions=(),
        released=(),
        policy_hash="b" * 64,
        policy_name="p",
    )
    artefact_id, _ = artefacts.add_artefact(c, job, verdict)
    review = reviews.new_review(
        artefacts.get_artefact(c, artefact_id),
        decision,
        reviewer="Dr. Ada Example",
        actor="tester",
        reason="",
        digest="0" * 64,
        document=EMPTY,
        consent=consent,
        job_id=None,
    )
    label = ReviewLabel(instance_sha256=sha256, condition="pneumonia", presence=presence, corrected=False)
    reviews.add_review(c, review, [label, label.model_copy(update={"condition": "fracture"})])
    return review.review_id
