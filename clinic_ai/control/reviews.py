"""The routes about reviews: anybody sees what waits; words and decisions are the clinicians', on the control socket."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request

from clinic_ai.control.asking import Clinician, Having, Id
from clinic_ai.control.pages import ReviewPage
from clinic_ai.control.paging import Before, Limit, no_such_row
from clinic_ai.control.people import Peer, Person, stands_for_nobody
from clinic_ai.control.review_views import (
    AcceptReview,
    AmendReview,
    ConsentOrder,
    DecidedRow,
    FindingRow,
    Name,
    RejectReview,
    ReviewOrder,
    ReviewRow,
    ReviewView,
    SignersView,
    SubjectRow,
)
from clinic_ai.control.services import Services
from clinic_ai.control.views import DecisionRow, DoneView
from clinic_ai.domain import Artefact, Finding, GuardVerdict, Study
from clinic_ai.domain.reviews import Correction, Passage, ReviewDecision
from clinic_ai.errors import NotAllowed
from clinic_ai.ingest.urgency import sentence
from clinic_ai.results.codes import finding_code
from clinic_ai.results.rendering import Material
from clinic_ai.results.reviewing import Order
from clinic_ai.store import reviews as stored
from clinic_ai.store import studies

router = APIRouter(prefix="/v1/reviews", tags=["reviews"])


@router.get("")
def get_reviews(services: Having, limit: Limit = 100, before: Before = None) -> ReviewPage:
    """Return what waits for a person: held artefacts first, then the oldest; no words."""
    found, goes_on = services.reviews.queue(limit, None if before is None else _place(before))
    with services.database.read() as connection:
        about = studies.of_versions(connection, [(artefact.study_id, artefact.version) for artefact in found])
    return ReviewPage(
        reviews=tuple(_row(artefact, about[artefact.study_id, artefact.version]) for artefact in found),
        next_before=None if goes_on is None else "~".join(map(str, goes_on)),
    )


def _place(words: str) -> stored.Place:
    """Return where a page ended. Raise NotFound if that is no place of the queue."""
    state, _, rest = words.partition("~")
    made, _, artefact_id = rest.partition("~")
    try:
        return state, float(made), artefact_id
    except ValueError:
        raise no_such_row() from None


@router.get("/signers")
def get_signers(services: Having, person: Clinician) -> SignersView:
    """Return the names that results are signed with here, and the one that this person signs with unasked."""
    names = services.settings().review.reviewers
    if stands_for_nobody(person.uid) and not names:
        return SignersView(names=(), own="")
    try:
        return SignersView(names=names, own=services.reviews.name_of(person.name, None))
    except NotAllowed:
        return SignersView(names=names, own="")


@router.get("/{artefact_id}")
def get_review(
    artefact_id: Id,
    services: Having,
    person: Clinician,
    request: Request,
    reviewer: Annotated[Name | None, Query(description="Who will sign; else the Unix user.")] = None,
    deciding: Annotated[bool, Query(description="Whether to refuse a name that cannot sign.")] = False,
) -> ReviewView:
    """Return an artefact as this person would sign it, with the patient it is about; never on the monitor socket."""
    peer: Peer = request.state.peer
    if peer.readonly:
        raise NotAllowed("The monitor socket shows what waits, not what it says.", remedy="Use the control socket.")
    signer = services.reviews.name_of(person.name, reviewer) if deciding else ""
    shown = services.reviews.show(artefact_id, signer or reviewer or person.name)
    return ReviewView(
        row=_row(shown.artefact, shown.material.study),
        subject=_subject(shown.material),
        signer=signer,
        statements=shown.said,
        withheld=shown.withheld,
        decisions=_decisions(shown.verdict),
        original_decisions=_decisions(shown.artefact.verdict),
        marks=shown.verdict.marks,
        findings=tuple(_finding(finding) for finding in shown.material.findings),
        digest=shown.digest,
        history=tuple(
            DecidedRow(
                review_id=review.review_id,
                decision=review.decision.value,
                reviewer=review.reviewer,
                reason=review.reason,
                diff=review.document.diff,
                consent=review.consent,
                decided_at=review.decided_at,
            )
            for review in shown.reviews
        ),
    )


@router.post("/{artefact_id}/accept")
def accept(artefact_id: Id, order: AcceptReview, services: Having, person: Clinician) -> DoneView:
    """Sign an artefact as it was shown."""
    return _decide(services, person, artefact_id, ReviewDecision.ACCEPT, order)


@router.post("/{artefact_id}/amend")
def amend(artefact_id: Id, order: AmendReview, services: Having, person: Clinician) -> DoneView:
    """Sign an artefact in other words."""
    return _decide(
        services,
        person,
        artefact_id,
        ReviewDecision.AMEND,
        order,
        said=order.statements,
        corrections=order.corrections,
        reason=order.reason,
    )


@router.post("/{artefact_id}/reject")
def reject(artefact_id: Id, order: RejectReview, services: Having, person: Clinician) -> DoneView:
    """Let nothing of an artefact go out."""
    return _decide(
        services,
        person,
        artefact_id,
        ReviewDecision.REJECT,
        order,
        corrections=order.corrections,
        reason=order.reason,
    )


@router.post("/{review_id}/consent")
def consent(review_id: Id, order: ConsentOrder, services: Having, person: Clinician) -> DoneView:
    """Say whether models may learn from a review."""
    with services.database.write() as connection:
        stored.set_consent(connection, review_id, order.consent, person.name)
    return DoneView(sentence=f"Models may {'' if order.consent else 'not '}learn from review {review_id}.")


def _decide(
    services: Services,
    person: Person,
    artefact_id: str,
    decision: ReviewDecision,
    order: ReviewOrder,
    *,
    said: tuple[Passage, ...] | None = None,
    corrections: tuple[Correction, ...] = (),
    reason: str = "",
) -> DoneView:
    if stands_for_nobody(person.uid) and not services.settings().review.reviewers:
        raise NotAllowed(
            f"{person.name} is no named person here, and only a named person decides about a result.",
            remedy="Decide as a Unix user of your own who is a clinician in [control] of clinic.toml; or list names "
            "under [review] reviewers there, reload, and give yours with --as.",
        )
    name = services.reviews.name_of(person.name, order.reviewer)
    made = Order(
        artefact_id=artefact_id,
        decision=decision,
        digest=order.digest,
        said=said,
        corrections=corrections,
        reason=reason,
        consent=order.consent,
    )
    return DoneView(sentence=services.reviews.decide(made, user=person.name, name=name))


def _subject(material: Material) -> SubjectRow:
    who, facts = material.study.identity, material.study.facts
    dates = dict.fromkeys(instance.header.study_date for instance in material.instances)
    return SubjectRow(
        patient_name=who.patient_name,
        patient_id=who.patient_id,
        birth_date=who.birth_date,
        study_dates=tuple(filter(None, dates)),
        modalities=facts.modalities,
        body_parts=facts.body_parts,
    )


def _decisions(verdict: GuardVerdict) -> tuple[DecisionRow, ...]:
    return tuple(
        DecisionRow(rule=d.rule, action=d.action.value, reason=d.reason, statement_id=d.statement_id)
        for d in verdict.decisions
    )


def _finding(finding: Finding) -> FindingRow:
    return FindingRow(
        condition=finding.condition,
        label=finding_code(finding.condition).label,
        laterality=finding.laterality,
        presence=finding.presence,
        probability=finding.probability,
        threshold=finding.threshold,
    )


def _row(artefact: Artefact, study: Study) -> ReviewRow:
    return ReviewRow(
        artefact_id=artefact.artefact_id,
        study_id=artefact.study_id,
        version=artefact.version,
        audience=artefact.audience.value,
        state=artefact.state.value,
        action=artefact.verdict.action.value,
        rules=tuple(sorted({decision.rule for decision in artefact.verdict.decisions})),
        created_at=artefact.created_at,
        pseudonym=study.pseudonym,
        modality="/".join(study.facts.modalities),
        priority=study.priority,
        priority_reason=sentence(study.urgency),
    )
