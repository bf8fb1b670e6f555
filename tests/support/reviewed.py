"""Images with reviews of their results, stored as the review rooms store them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from school import School, tiny_png
from sqlalchemy import Connection

from clinic_ai.domain import (
    Analysis,
    Answer,
    Audience,
    GuardAction,
    GuardVerdict,
    JobKind,
    PatientIdentity,
    Presence,
    StudyFacts,
)
from clinic_ai.domain.reviews import Passage, ReviewDecision, ReviewDocument, ReviewLabel
from clinic_ai.results.statements import statements_of
from clinic_ai.store import artefacts, jobs, reviews, studies
from clinic_ai.store.ledger import Sighting, begin_claims
from clinic_ai.workers.parser import read_header

EMPTY = ReviewDocument()


def reviewed(
    school: School,
    number: int,
    presence: Presence = Presence.PRESENT,
    *,
    consent: bool = True,
    decision: ReviewDecision = ReviewDecision.ACCEPT,
    image: bytes = b"",
    patient_key: str = "",
) -> tuple[str, str]:
    """Store an image with a review of its result; return its hash and the review."""
    objects = school.runs.datasets._deidentifier.objects
    sha256, _ = objects.write_bytes(image or tiny_png(f"reviewed {number}"))
    with school.database.write() as c:
        study_id = _study(c, number, patient_key)
        return sha256, review_again(c, study_id, sha256, presence, consent, decision)


def review_again(
    c: Connection, study_id: str, sha256: str, presence: Presence, consent: bool, decision: ReviewDecision
) -> str:
    """Store a review of a study that says of an image whether pneumonia is present; return its id."""
    label = ReviewLabel(instance_sha256=sha256, condition="pneumonia", presence=presence, corrected=False)
    labels = [label, label.model_copy(update={"condition": "fracture"})]
    return _decide(c, study_id, decision, EMPTY, labels, consent=consent)


def reviewed_series(school: School, number: int, files: Sequence[Path], labels: dict[str, Presence]) -> list[str]:
    """Store a study of one series with a review that says what its middle slice shows; return its hashes."""
    objects = school.runs.datasets._deidentifier.objects
    with school.database.write() as c:
        sightings = [Sighting("ct room", path.name, b"%d" % number, 1, at) for at, path in enumerate(files)]
        file_ids = begin_claims(c, sightings)
    new = []
    for file_id, path in zip(file_ids, files, strict=True):
        sha256, size = objects.write_bytes(path.read_bytes())
        with path.open("rb") as stream:
            new.append(studies.NewInstance(file_id, sha256, size, read_header(stream, size, 10**9)))
    middle = new[len(new) // 2].sha256
    said = [
        ReviewLabel(instance_sha256=middle, condition=condition, presence=presence, corrected=False)
        for condition, presence in labels.items()
    ]
    with school.database.write() as c:
        study_id = _study(c, number)
        studies.add_instances(c, study_id, 1, new)
        _decide(c, study_id, ReviewDecision.AMEND, EMPTY, said, consent=True)
    return [one.sha256 for one in new]


def answered(
    school: School,
    number: int,
    answers: Sequence[Answer],
    *,
    written: dict[int, str] | None = None,
    shown: dict[int, str] | None = None,
    consent: bool = True,
    decision: ReviewDecision = ReviewDecision.AMEND,
    audience: Audience = Audience.CLINICIAN,
) -> tuple[str, str]:
    """Store an image, answers about it and a review of them; return the hash of the image and the study.

    ``written`` has what the person wrote in place of an answer (by number, from 1), nothing to leave it out; ``shown``
    what the guard made of one.
    """
    objects = school.runs.datasets._deidentifier.objects
    sha256, _ = objects.write_bytes(tiny_png(f"answered {number}"))
    about = tuple(answer.model_copy(update={"instance_sha256": sha256}) for answer in answers)
    analysis = Analysis(plugin="tiny", plugin_version="1.0", models=(), answers=about)
    texts = {s.statement_id: s.text for s in statements_of([analysis])} | _passages(shown or {})
    said = {**texts, **_passages(written or {})}
    document = ReviewDocument(
        shown=tuple(Passage(statement_id=key, text=text) for key, text in texts.items()),
        said=tuple(Passage(statement_id=key, text=text) for key, text in said.items() if text),
    )
    with school.database.write() as c:
        study_id = _study(c, number)
        job = jobs.get_job(c, jobs.add_job(c, kind=JobKind.ANALYSE, study_id=study_id, version=1, plugin="tiny"))
        jobs.save_analysis(c, job, analysis, ())
        _decide(c, study_id, decision, document, (), consent=consent, audience=audience)
    return sha256, study_id


def _passages(texts: dict[int, str]) -> dict[str, str]:
    return {f"a_{number}": text for number, text in texts.items()}


def _study(c: Connection, number: int, patient_key: str = "") -> str:
    return studies.open_study(
        c,
        grouping_key=f"1.2.{number}",
        study_instance_uid="1.2",
        pseudonym="P-A",
        patient_key=patient_key or f"{number:064x}",
        source="inbox",
        facts=StudyFacts(),
        identity=PatientIdentity(patient_id=f"P-{number}", patient_name="Quellwasser^Hanna"),
    )


def _decide(
    c: Connection,
    study_id: str,
    decision: ReviewDecision,
    document: ReviewDocument,
    labels: Sequence[ReviewLabel],
    *,
    consent: bool,
    audience: Audience = Audience.CLINICIAN,
) -> str:
    job = jobs.get_job(c, jobs.add_job(c, kind=JobKind.REPORT, study_id=study_id, version=1))
    verdict = GuardVerdict(
        audience=audience,
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
        document=document,
        consent=consent,
        job_id=None,
    )
    reviews.add_review(c, review, labels)
    return review.review_id


def settle(school: School) -> None:
    """Let every study be done: training makes way for one that is not."""
    with school.database.write() as c:
        c.exec_driver_sql("UPDATE jobs SET state = 'DONE'")
        c.exec_driver_sql("UPDATE studies SET state = 'DONE'")
