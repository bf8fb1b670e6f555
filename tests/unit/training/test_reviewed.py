"""What clinicians said of images becomes a dataset, if their reviews permit that."""

from __future__ import annotations

import pytest
import tiny_learner
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
from clinic_ai.errors import DatasetError
from clinic_ai.store import artefacts, jobs, reviews, studies

TINY = tiny_learner.manifest()
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
        return sha256, _review(c, study_id, sha256, presence, consent, decision)


def _review(
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


def test_what_was_reviewed_is_learned_from_with_consent_alone(school: School) -> None:
    present, _ = reviewed(school, 1)
    absent, _ = reviewed(school, 2, Presence.ABSENT, decision=ReviewDecision.AMEND)
    reviewed(school, 3, Presence.UNCERTAIN)
    refused, review_id = reviewed(school, 4, consent=False)
    dataset = school.runs.datasets.freeze_reviewed(TINY, "ada")
    assert sorted(example.labels["pneumonia"] for example in dataset.examples) == [0, 1]
    assert {example.patient_key for example in dataset.examples} == {f"{1:064x}", f"{2:064x}"}
    assert school.runs.datasets.get(dataset.dataset_id).examples == dataset.examples
    with school.database.read() as c:
        known = {example.sha256: example.labels for example in reviews.labelled_examples(c, ["pneumonia"])}
    assert known == {present: {"pneumonia": 1}, absent: {"pneumonia": 0}}
    with school.database.write() as c:
        reviews.set_consent(c, review_id, True, "ada")
        assert refused in {example.sha256 for example in reviews.labelled_examples(c, ["pneumonia"])}


def test_the_newest_review_of_a_study_counts(school: School) -> None:
    sha256, review_id = reviewed(school, 1)
    with school.database.write() as c:
        study_id = reviews.get_review(c, review_id).study_id
        _review(c, study_id, sha256, Presence.ABSENT, True, ReviewDecision.REJECT)
        [example] = reviews.labelled_examples(c, ["pneumonia"])
        assert example.labels == {"pneumonia": 0}
        _review(c, study_id, sha256, Presence.PRESENT, False, ReviewDecision.AMEND)
        assert reviews.labelled_examples(c, ["pneumonia"]) == []


def test_nothing_reviewed_is_said(school: School) -> None:
    with pytest.raises(DatasetError, match="no labelled image"):
        school.runs.datasets.freeze_reviewed(TINY, "ada")
