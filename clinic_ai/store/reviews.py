"""What persons decided about artefacts, and the labels that follow; written once, in one transaction each."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Integer, Row, func, insert, literal, literal_column, or_, select, tuple_, update

from clinic_ai.domain import Artefact, ArtefactState, Audience, JobState, PatientIdentity, Presence, Word, new_id
from clinic_ai.domain.reviews import Review, ReviewDecision, ReviewDocument, ReviewLabel, SignOff
from clinic_ai.errors import NotFound
from clinic_ai.store.artefacts import artefact_of_row
from clinic_ai.store.audit import record
from clinic_ai.store.digests import ROW, review_digest
from clinic_ai.store.tables import artefacts, jobs, review_labels, reviews, studies

WAITING = (ArtefactState.HELD, ArtefactState.PRELIMINARY)
"""States of artefacts that wait for a person."""
_STORED = literal_column("reviews.rowid", Integer)
"""In which order decisions were stored; by ``decided_at`` a clock that was set back would change it."""


class LabelledExample(Word):
    """An image of a study that a person reviewed: the original by its hash, whose it is, and what it shows."""

    review_id: str
    study_id: str
    version: int
    sha256: str
    patient_key: str
    labels: dict[str, int]
    """1 where the person says that a condition is present, 0 where absent."""


class SignedStudy(Word):
    """A signed review with whose study it is of."""

    review: Review
    patient_key: str
    identity: PatientIdentity


def add_review(connection: Connection, review: Review, labels: Iterable[ReviewLabel]) -> None:
    """Store a decision with its labels and its audit row, all in the caller's transaction."""
    values = review.model_dump(mode="json")
    values["document"] = review.document.model_dump_json()
    connection.execute(insert(reviews).values(**values))
    rows = [{"review_id": review.review_id, **label.model_dump(mode="json")} for label in labels]
    if rows:
        connection.execute(insert(review_labels), rows)
    record(
        connection,
        actor=review.actor,
        action=f"review.{review.decision.value}",
        subject=review.study_id,
        details={  # no words: they may speak of the patient
            "review": review.review_id,
            "artefact": review.artefact_id,
            "version": review.version,
            "reviewer": review.reviewer,
            "shown": review.digest,
            "corrections": len(review.document.corrections),
            "consent": review.consent,
            ROW: review_digest(connection, review.review_id),
        },
    )


def get_review(connection: Connection, review_id: str) -> Review:
    """Return a decision. Raise NotFound if there is none of that id."""
    row = connection.execute(select(reviews).where(reviews.c.review_id == review_id)).first()
    if row is None:
        raise NotFound(
            f"There is no review {review_id}.",
            remedy="`clinic-ai review show` names those of an artefact, `clinic-ai study show` the artefacts.",
        )
    return _review(row)


def review_of_job(connection: Connection, job_id: str) -> Review | None:
    """Return the decision that a job carries out, None if there is none."""
    row = connection.execute(select(reviews).where(reviews.c.job_id == job_id)).first()
    return None if row is None else _review(row)


def sign_off_of(connection: Connection, artefact: Artefact) -> SignOff | None:
    """Return who signed an artefact and what that person corrected; None for one that is the software's own."""
    review = review_of_job(connection, artefact.job_id) if artefact.revision else None
    if review is None:
        return None
    return SignOff(
        review_id=review.review_id,
        name=review.reviewer,
        at=review.decided_at,
        revision=artefact.revision,
        amended=bool(review.document.diff),
        corrections=review.document.corrections,
    )


def reviews_of(connection: Connection, artefact_id: str) -> list[Review]:
    """Return the decisions about an artefact, oldest first."""
    query = select(reviews).where(reviews.c.artefact_id == artefact_id)
    return [_review(row) for row in connection.execute(query.order_by(_STORED))]


def reviews_of_version(connection: Connection, study_id: str, version: int) -> list[Review]:
    """Return the decisions about all artefacts of a study version, oldest first."""
    query = select(reviews).where(reviews.c.study_id == study_id, reviews.c.version == version)
    return [_review(row) for row in connection.execute(query.order_by(_STORED))]


def standing_review(connection: Connection, artefact_id: str) -> Review | None:
    """Return the decision about an artefact that holds: the newest whose job was not given up or cancelled."""
    given_up = [JobState.FAILED.value, JobState.CANCELLED.value]
    query = (
        select(reviews)
        .outerjoin(jobs, jobs.c.job_id == reviews.c.job_id)
        .where(reviews.c.artefact_id == artefact_id, or_(jobs.c.state.is_(None), jobs.c.state.not_in(given_up)))
        .order_by(_STORED.desc())
        .limit(1)
    )
    row = connection.execute(query).first()
    return None if row is None else _review(row)


Place = tuple[str, float, str]
"""Where an artefact stands among those that wait: its state, when it was made, and its id."""


def place_of(artefact: Artefact) -> Place:
    """Return where an artefact stands among those that wait."""
    return artefact.state.value, artefact.created_at, artefact.artefact_id


def waiting(connection: Connection, limit: int, after: Place | None = None) -> list[Artefact]:
    """Return the artefacts that wait for a person, held ones first, then the oldest; those after a place if given."""
    order = (artefacts.c.state, artefacts.c.created_at, artefacts.c.artefact_id)
    query = (
        select(artefacts).where(artefacts.c.state.in_([state.value for state in WAITING])).order_by(*order).limit(limit)
    )
    if after is not None:
        query = query.where(tuple_(*order) > tuple_(*map(literal, after)))
    return [artefact_of_row(connection, row) for row in connection.execute(query).all()]


def next_revision(connection: Connection, study_id: str, version: int) -> int:
    """Return the number of the next signed report of a study version, from 1."""
    query = select(func.max(artefacts.c.revision)).where(
        artefacts.c.study_id == study_id, artefacts.c.version == version
    )
    return int(connection.execute(query).scalar() or 0) + 1


def set_consent(connection: Connection, review_id: str, consent: bool, actor: str) -> None:
    """Change whether models may learn from a review. Raise NotFound if there is none of that id."""
    review = get_review(connection, review_id)
    connection.execute(update(reviews).where(reviews.c.review_id == review_id).values(consent=int(consent)))
    record(
        connection,
        actor=actor,
        action="review.consent",
        subject=review.study_id,
        details={"review": review_id, "from": review.consent, "to": consent},
    )


def withdrawn(connection: Connection, review_ids: Collection[str]) -> int:
    """Return how many of these reviews may not be learned from."""
    refused = connection.execute(select(reviews.c.review_id).where(reviews.c.consent == 0)).scalars()
    return len(set(review_ids).intersection(refused))


def labelled_examples(connection: Connection, conditions: Collection[str]) -> list[LabelledExample]:
    """Return the images that persons labelled for these conditions and that may be learned from.

    Of a study the newest review counts, whichever version it is of. What was said of the study as a whole, or as
    uncertain, is no label of an image; originals that retention removed are left out.
    """
    newest = select(func.max(_STORED)).select_from(reviews).group_by(reviews.c.study_id).correlate(None)
    query = (
        select(
            reviews.c.review_id,
            reviews.c.study_id,
            reviews.c.version,
            studies.c.patient_key,
            review_labels.c.instance_sha256,
            review_labels.c.condition,
            review_labels.c.presence,
        )
        .join(review_labels, review_labels.c.review_id == reviews.c.review_id)
        .join(studies, (studies.c.study_id == reviews.c.study_id) & (studies.c.version == reviews.c.version))
        .where(
            _STORED.in_(newest),
            reviews.c.consent == 1,
            studies.c.originals_removed_at.is_(None),
            review_labels.c.instance_sha256 != "",
            review_labels.c.condition.in_(conditions),
            review_labels.c.presence.in_([Presence.PRESENT.value, Presence.ABSENT.value]),
        )
        .order_by(_STORED, review_labels.c.instance_sha256, review_labels.c.condition)
    )
    found: dict[tuple[str, str], LabelledExample] = {}
    for row in connection.execute(query):
        key = (row.study_id, row.instance_sha256)
        labels = {**(found[key].labels if key in found else {}), row.condition: int(row.presence == Presence.PRESENT)}
        found[key] = LabelledExample(
            review_id=row.review_id,
            study_id=row.study_id,
            version=row.version,
            sha256=row.instance_sha256,
            patient_key=row.patient_key,
            labels=labels,
        )
    return list(found.values())


def answered_reviews(connection: Connection) -> list[SignedStudy]:
    """Return the signed reviews of clinicians' reports that may be learned from, the oldest first.

    Of a study the newest review of such a report counts, whichever version it is of; if that rejects it or does not
    permit learning, there is none of the study. Studies whose originals retention removed are left out.
    """
    mine = (
        select(_STORED.label("stored"), reviews.c.study_id)
        .select_from(reviews.join(artefacts, artefacts.c.artefact_id == reviews.c.artefact_id))
        .where(artefacts.c.audience == Audience.CLINICIAN.value)
        .subquery()
    )
    newest = select(func.max(mine.c.stored)).group_by(mine.c.study_id)
    query = (
        select(reviews, studies.c.patient_key, studies.c.identity)
        .join(studies, (studies.c.study_id == reviews.c.study_id) & (studies.c.version == reviews.c.version))
        .where(
            _STORED.in_(newest),
            reviews.c.consent == 1,
            reviews.c.decision.in_([decision.value for decision in ReviewDecision if decision.signs]),
            studies.c.originals_removed_at.is_(None),
        )
        .order_by(_STORED)
    )
    return [
        SignedStudy(
            review=_review(row),
            patient_key=row.patient_key,
            identity=PatientIdentity.model_validate_json(row.identity),
        )
        for row in connection.execute(query)
    ]


def new_review(
    artefact: Artefact,
    decision: ReviewDecision,
    *,
    reviewer: str,
    actor: str,
    reason: str,
    digest: str,
    document: ReviewDocument,
    consent: bool,
    job_id: str | None,
) -> Review:
    """Return a decision about an artefact made now, not yet stored."""
    return Review(
        review_id=new_id("W"),
        artefact_id=artefact.artefact_id,
        study_id=artefact.study_id,
        version=artefact.version,
        decision=decision,
        reviewer=reviewer,
        actor=actor,
        reason=reason,
        digest=digest,
        document=document,
        consent=consent,
        job_id=job_id,
        decided_at=time.time(),
    )


def reviewed_ids(connection: Connection, artefact_ids: Sequence[str]) -> set[str]:
    """Return those of these artefacts about which a decision stands."""
    return {found for found in artefact_ids if standing_review(connection, found) is not None}


def _review(row: Row[Any]) -> Review:
    return Review(
        review_id=row.review_id,
        artefact_id=row.artefact_id,
        study_id=row.study_id,
        version=row.version,
        decision=ReviewDecision(row.decision),
        reviewer=row.reviewer,
        actor=row.actor,
        reason=row.reason,
        digest=row.digest,
        document=ReviewDocument.model_validate_json(row.document),
        consent=bool(row.consent),
        job_id=row.job_id,
        decided_at=row.decided_at,
    )
