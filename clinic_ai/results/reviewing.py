"""What people may ask and decide about artefacts that wait for them.

A decision is one transaction: the row that says who decided what, its audit row, the artefact's new state, the labels,
and the job that carries it out. Rendering comes afterwards (``signing``), so that a crash loses neither.
Words reach a reviewer as ``Released`` only: the guard judges the draft as if that person had written it, and of what
it keeps back then the rule and the reason are shown.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from clinic_ai.domain import Artefact, ArtefactState, GuardAction, GuardVerdict, JobKind, Released, Study, StudyState
from clinic_ai.domain.reviews import Correction, Passage, Review, ReviewDecision, ReviewDocument
from clinic_ai.errors import Conflict, InputError
from clinic_ai.results.passages import (
    check_conditions,
    check_known,
    corrected,
    difference,
    digest_of,
    draft_of,
    labels_for,
    statements_for,
)
from clinic_ai.results.rendering import Material, material_of
from clinic_ai.results.reporting import ReportRunner, unavailable
from clinic_ai.results.signatures import signing_name
from clinic_ai.results.signing import Refused, check_verbatim, reasons
from clinic_ai.settings import ReviewSettings
from clinic_ai.store import alerts, artefacts, jobs, reviews, studies
from clinic_ai.store.database import Database
from clinic_ai.store.objects import ObjectStore

_DONE = {
    ReviewDecision.ACCEPT: "is accepted and signed by {name}; the final report is made now.",
    ReviewDecision.AMEND: "is amended and signed by {name}; the final report is made now.",
    ReviewDecision.REJECT: "is rejected by {name}; nothing of it goes out from now on.",
}
_PAST = {
    ReviewDecision.ACCEPT: "accepted",
    ReviewDecision.AMEND: "amended",
    ReviewDecision.REJECT: "rejected",
}
_AGAIN = "Look at it again with `clinic-ai review show {artefact}` and decide about what it says now."


@dataclass(frozen=True)
class Shown:
    """What a reviewer sees of an artefact. ``withheld`` are ids of statements the guard keeps back even from review."""

    artefact: Artefact
    said: tuple[Released, ...]
    withheld: tuple[str, ...]
    verdict: GuardVerdict
    digest: str
    material: Material
    """What it was made of: the study with its patient, and the findings as the software has them."""
    reviews: tuple[Review, ...]


@dataclass(frozen=True)
class Order:
    """What a person decides. ``digest`` is that of what was shown; ``said`` None leaves the words as they are."""

    artefact_id: str
    decision: ReviewDecision
    digest: str
    said: tuple[Passage, ...] | None = None
    corrections: tuple[Correction, ...] = ()
    reason: str = ""
    consent: bool | None = None


class Reviews:
    """The queue of what waits for a person, and the decisions."""

    def __init__(
        self,
        database: Database,
        objects: ObjectStore,
        reports: ReportRunner,
        settings: Callable[[], ReviewSettings],
        wake: Callable[[], None],
    ) -> None:
        self._database = database
        self._objects = objects
        self._reports = reports
        self._settings = settings
        self._wake = wake

    def queue(self, limit: int, after: reviews.Place | None = None) -> tuple[list[Artefact], reviews.Place | None]:
        """Return what waits for a person, held artefacts first, then the oldest; metadata, no words.

        What was returned last continues the queue as ``after``; None at its end.
        """
        with self._database.read() as connection:
            found = reviews.waiting(connection, limit, after)
            decided = reviews.reviewed_ids(connection, [artefact.artefact_id for artefact in found])
        goes_on = reviews.place_of(found[-1]) if len(found) == limit else None
        return [artefact for artefact in found if artefact.artefact_id not in decided], goes_on

    def name_of(self, user: str, wanted: str | None) -> str:
        """Return the name a person signs with: one of ``review.reviewers``, or that of the Unix user.

        Raise NotAllowed if clinic.toml does not list it, or nobody can be named.
        """
        return signing_name(self._settings(), user, wanted)

    def show(self, artefact_id: str, name: str) -> Shown:
        """Return what ``name`` would sign. Raise NotFound, or ChildDied's base if the guard does not answer."""
        with self._database.read() as connection:
            artefact = artefacts.find_artefact(connection, artefact_id)
            material = material_of(connection, artefact.study_id, artefact.version)
            history = tuple(reviews.reviews_of(connection, artefact_id))
        return self._shown(artefact, material, name, history)

    def decide(self, order: Order, *, user: str, name: str) -> str:
        """Store a decision and what follows from it; return it in words. The same order again changes nothing.

        Raise NotFound; Conflict if the artefact was decided, superseded, or reads otherwise than what was shown;
        Refused if the guard does not let the words out; InputError if the order says nothing, or names a condition or
        statement that is not there.
        """
        with self._database.read() as connection:
            artefact = artefacts.find_artefact(connection, order.artefact_id)
            material = material_of(connection, artefact.study_id, artefact.version)
            standing = reviews.standing_review(connection, artefact.artefact_id)
        if standing is not None:
            return self._decided_before(order, standing, name)
        _check_state(artefact, order)
        document = self._document(order, artefact, material, name)
        if order.decision.signs:
            self._check_originals(material)
        with self._database.write() as connection:
            standing = reviews.standing_review(connection, artefact.artefact_id)
            if standing is not None:
                return self._decided_before(order, standing, name)
            self._store(connection, order, document, material, user=user, name=name)
        self._wake()
        return f"Artefact {artefact.artefact_id} of study {artefact.study_id} {_DONE[order.decision].format(name=name)}"

    # ------------------------------------------------------------ what is shown

    def _shown(self, artefact: Artefact, material: Material, name: str, history: tuple[Review, ...]) -> Shown:
        draft = draft_of(artefact, material)
        verdict = self._answered(material, draft, name)
        withheld: set[str] = set()
        said = verdict.released
        if verdict.action.severity >= GuardAction.HOLD.severity:
            withheld = {d.statement_id for d in verdict.decisions if d.action.severity >= GuardAction.HOLD.severity}
            rest = [] if "" in withheld else [p for p in draft if p.statement_id not in withheld]
            said = self._answered(material, rest, name).released if rest else ()
        withheld = {passage.statement_id for passage in draft} - {one.statement_id for one in said}
        return Shown(
            artefact=artefact,
            said=said,
            withheld=tuple(p.statement_id for p in draft if p.statement_id in withheld),
            verdict=verdict,
            digest=digest_of(artefact.artefact_id, said, withheld, verdict, material.findings),
            material=material,
            reviews=history,
        )

    def _answered(self, material: Material, passages: Sequence[Passage], name: str) -> GuardVerdict:
        verdict = self._reports.judge(material, statements_for(passages, material), name)
        if unavailable(verdict):
            raise Conflict(
                "The guard does not answer, so nothing is shown and nothing can be signed.",
                remedy="Look at `clinic-ai doctor` and at the alerts, and try again when it runs.",
            )
        return verdict

    # ------------------------------------------------------------ what is decided

    def _document(self, order: Order, artefact: Artefact, material: Material, name: str) -> ReviewDocument:
        check_conditions(order.corrections)
        try:
            shown = self._shown(artefact, material, name, ())
        except Conflict:
            if order.decision.signs:
                raise
            # Rejecting needs no guard: nothing goes out.
            return ReviewDocument(corrections=order.corrections)
        if order.digest != shown.digest:
            raise Conflict(
                f"Artefact {artefact.artefact_id} does not read as it did when it was shown to you.",
                remedy=_AGAIN.format(artefact=artefact.artefact_id),
            )
        before = _passages(shown.said)
        if not order.decision.signs:
            return ReviewDocument(shown=before, corrections=order.corrections)
        said = self._signed_words(order, shown, name)
        return ReviewDocument(shown=before, said=said, corrections=order.corrections, diff=difference(before, said))

    def _signed_words(self, order: Order, shown: Shown, name: str) -> tuple[Passage, ...]:
        """Return the words that an order signs. Raise Refused or InputError if they cannot be signed."""
        before = _passages(shown.said)
        said = before if order.said is None else order.said
        check_known(said, shown.artefact, shown.material)
        if order.decision is ReviewDecision.ACCEPT and shown.withheld:
            raise Refused(
                f"The guard keeps part of it back, so it cannot be accepted as it is: {reasons(shown.verdict)}",
                remedy="Amend it: leave these statements out or write them anew. Or reject it.",
            )
        said = corrected(said, before, order.corrections, shown.material.findings)
        if order.decision is ReviewDecision.AMEND:
            if said == before and not shown.withheld and not order.corrections:
                raise InputError("nothing_amended", "Nothing was changed.", remedy="Accept it, or change its words.")
            self._check_guarded(said, shown.material, name)
        if not said:
            raise InputError("nothing_said", "A report without a word is none.", remedy="Reject it instead.")
        return said

    def _check_guarded(self, said: tuple[Passage, ...], material: Material, name: str) -> None:
        """Raise Refused unless the guard lets just these words out."""
        try:
            check_verbatim(said, self._answered(material, said, name))
        except Refused as error:
            error.remedy = "Change these statements and amend it again; nothing was decided yet."
            raise

    def _check_originals(self, material: Material) -> None:
        missing = [i for i in material.instances if not self._objects.has(i.sha256)]
        if missing:
            raise Conflict(
                f"{len(missing)} of {len(material.instances)} images of study {material.study.study_id} are not stored "
                "any more, so its report cannot be made again.",
                remedy="Send the study again; a signed report shows the images it is about.",
            )

    def _store(
        self,
        connection: Connection,
        order: Order,
        document: ReviewDocument,
        material: Material,
        *,
        user: str,
        name: str,
    ) -> None:
        artefact = artefacts.get_artefact(connection, order.artefact_id)
        study = studies.get_study(connection, artefact.study_id)
        _check_state(artefact, order)
        job_id = _queue_signing(connection, artefact, study) if order.decision.signs else None
        review = reviews.new_review(
            artefact,
            order.decision,
            reviewer=name,
            actor=user,
            reason=order.reason,
            digest=order.digest,
            document=document,
            consent=self._settings().consent_default if order.consent is None else order.consent,
            job_id=job_id,
        )
        reviews.add_review(connection, review, labels_for(order.decision, document, material))
        artefacts.mark_reviewed(connection, artefact, review)
        alerts.withdraw(connection, "not_signed", artefact.study_id)
        if study.version == artefact.version and study.state is StudyState.DONE:
            studies.set_wait(connection, study.study_id, study.version, None)

    def _decided_before(self, order: Order, standing: Review, name: str) -> str:
        same = (standing.decision, standing.digest, standing.reviewer) == (order.decision, order.digest, name)
        wanted = order.said is None or order.said == standing.document.said
        if same and wanted and order.corrections == standing.document.corrections:
            done = _DONE[order.decision].format(name=name)
            return f"Artefact {order.artefact_id} of study {standing.study_id} {done}"
        raise Conflict(
            f"Artefact {order.artefact_id} was decided already: {_PAST[standing.decision]} by {standing.reviewer}.",
            remedy="Amend the signed artefact that follows from it; `clinic-ai study show` names it."
            if standing.decision.signs
            else "Nothing of it goes out and no signed artefact follows. `clinic-ai study reroute` analyses the study "
            "again, as a new version to review.",
        )


def _queue_signing(connection: Connection, artefact: Artefact, study: Study) -> str:
    """Queue the job that carries a signature out; return its id. Raise Conflict if the study has a newer version."""
    if study.version != artefact.version:
        raise Conflict(
            f"Study {artefact.study_id} has a newer version {study.version}, so this one is not signed any more.",
            remedy="Review the newer version.",
        )
    return jobs.add_job(
        connection,
        kind=JobKind.SIGN,
        study_id=artefact.study_id,
        version=artefact.version,
        priority=study.priority,
    )


def _passages(said: Collection[Released]) -> tuple[Passage, ...]:
    return tuple(Passage(statement_id=one.statement_id, text=one.text) for one in said)


def _check_state(artefact: Artefact, order: Order) -> None:
    """Raise Conflict unless a person may decide this about the artefact as it stands."""
    if artefact.state in reviews.WAITING:
        return
    if artefact.state is ArtefactState.FINAL and order.decision is ReviewDecision.AMEND:
        return  # a signed report can be wrong too: a new one takes its place
    raise Conflict(
        f"Artefact {artefact.artefact_id} is {artefact.state.value}; it cannot be {_PAST[order.decision]}.",
        remedy="`clinic-ai review list` shows what waits for a decision.",
    )
