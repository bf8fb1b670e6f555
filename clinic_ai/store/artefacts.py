"""Artefacts, what the guard decided of them, and their deliveries."""

from __future__ import annotations

import math
import time
from typing import Any

from sqlalchemy import Connection, Row, func, insert, or_, select, update

from clinic_ai import states
from clinic_ai.domain import (
    Artefact,
    ArtefactState,
    Audience,
    Delivery,
    DeliveryState,
    GuardAction,
    GuardVerdict,
    Job,
    new_id,
)
from clinic_ai.domain.reviews import Review, SignOff
from clinic_ai.errors import NotFound
from clinic_ai.store.audit import KEY, document_digest, record
from clinic_ai.store.digests import FILES, ROW, artefact_digest, files_digest
from clinic_ai.store.jobs import files_of
from clinic_ai.store.tables import artefacts, deliveries

_EVENT = {GuardAction.HOLD: "hold", GuardAction.BLOCK: "block"}


def add_artefact(connection: Connection, job: Job, verdict: GuardVerdict) -> tuple[str, ArtefactState]:
    """Store an artefact in the state its verdict gives it; return its id and that state.

    The files of its job have to be stored before: the audit vouches for their list.
    """
    artefact_id = new_id("A")
    document = verdict.model_dump_json()
    state = states.step(states.ARTEFACT, ArtefactState.DRAFT, _EVENT.get(verdict.action, "release"))
    connection.execute(
        insert(artefacts).values(
            artefact_id=artefact_id,
            job_id=job.job_id,
            study_id=job.study_id,
            version=job.version,
            audience=verdict.audience.value,
            state=state.value,
            verdict=document,
            policy_hash=verdict.policy_hash,
            created_at=time.time(),
        )
    )
    record(
        connection,
        actor="guard",
        action=f"artefact.{state.value.lower()}",
        subject=job.study_id,
        details={
            "artefact": artefact_id,
            "version": job.version,
            "audience": verdict.audience.value,
            "action": verdict.action.value,
            "rules": sorted({d.rule for d in verdict.decisions}),
            "policy": verdict.policy_hash,
            KEY: document_digest(document),
            ROW: artefact_digest(connection, artefact_id),
            FILES: files_digest(connection, artefact_id),
        },
    )
    return artefact_id, state


def mark_reviewed(connection: Connection, artefact: Artefact, review: Review) -> None:
    """Move an artefact as a person decided: a rejected one never goes out, a held one that was accepted is released.

    Raise Conflict if its state does not permit that.
    """
    if not review.decision.signs:
        state = states.step(states.ARTEFACT, artefact.state, "reject")
    elif artefact.state is ArtefactState.HELD:
        state = states.step(states.ARTEFACT, artefact.state, "accept")
    else:
        return
    connection.execute(update(artefacts).where(_is(artefact.artefact_id)).values(state=state.value))
    record(
        connection,
        actor=review.actor,
        action=f"artefact.{state.value.lower()}",
        subject=artefact.study_id,
        details={"artefact": artefact.artefact_id, "version": artefact.version, "review": review.review_id},
    )


def add_signed(connection: Connection, job: Job, verdict: GuardVerdict, review: Review, sign: SignOff) -> str:
    """Store the FINAL artefact that a decision leads to, and let it take the reviewed one's place; return its id.

    Raise Conflict if the guard did not release it, or the reviewed artefact may no longer be superseded. The database
    itself refuses FINAL without the stored decision of a named person.
    """
    reviewed = get_artefact(connection, review.artefact_id)
    following = states.step(states.ARTEFACT, reviewed.state, "supersede")
    state = states.step(states.ARTEFACT, ArtefactState.DRAFT, _EVENT.get(verdict.action, "release"))
    state = states.step(states.ARTEFACT, state, "sign")
    artefact_id = new_id("A")
    connection.execute(update(artefacts).where(_is(reviewed.artefact_id)).values(state=following.value))
    connection.execute(
        insert(artefacts).values(
            artefact_id=artefact_id,
            job_id=job.job_id,
            study_id=job.study_id,
            version=job.version,
            audience=verdict.audience.value,
            state=state.value,
            verdict=verdict.model_dump_json(),
            policy_hash=verdict.policy_hash,
            signed_by=sign.name,
            review_id=review.review_id,
            revision=sign.revision,
            created_at=time.time(),
        )
    )
    record(
        connection,
        actor=review.actor,
        action="artefact.final",
        subject=job.study_id,
        details={
            "artefact": artefact_id,
            "replaces": reviewed.artefact_id,
            "version": job.version,
            "revision": sign.revision,
            "review": review.review_id,
            "signed_by": sign.name,
            "policy": verdict.policy_hash,
            KEY: document_digest(verdict.model_dump_json()),
            ROW: artefact_digest(connection, artefact_id),
            FILES: files_digest(connection, artefact_id),
        },
    )
    return artefact_id


def artefacts_of(connection: Connection, study_id: str, version: int | None = None) -> list[Artefact]:
    """Return the artefacts of a study (of one version if given), oldest first."""
    query = select(artefacts).where(artefacts.c.study_id == study_id)
    if version is not None:
        query = query.where(artefacts.c.version == version)
    return [
        artefact_of_row(connection, row) for row in connection.execute(query.order_by(artefacts.c.created_at)).all()
    ]


def get_artefact(connection: Connection, artefact_id: str) -> Artefact:
    """Return one artefact that is known to exist."""
    return artefact_of_row(connection, connection.execute(select(artefacts).where(_is(artefact_id))).one())


def find_artefact(connection: Connection, artefact_id: str) -> Artefact:
    """Return one artefact. Raise NotFound if there is none of that id."""
    row = connection.execute(select(artefacts).where(_is(artefact_id))).first()
    if row is None:
        raise NotFound(f"There is no artefact {artefact_id}.", remedy="`clinic-ai review list` shows what waits.")
    return artefact_of_row(connection, row)


def supersede_before(connection: Connection, study_id: str, version: int) -> None:
    """Mark the living artefacts of all earlier versions as superseded."""
    for row in connection.execute(
        select(artefacts).where(artefacts.c.study_id == study_id, artefacts.c.version < version)
    ).all():
        state = ArtefactState(row.state)
        if (state, "supersede") in states.ARTEFACT:
            following = states.step(states.ARTEFACT, state, "supersede")
            connection.execute(update(artefacts).where(_is(row.artefact_id)).values(state=following.value))
            record(
                connection,
                actor="clinic-ai",
                action="artefact.superseded",
                subject=study_id,
                details={"artefact": row.artefact_id, "by_version": version},
            )


def counts(connection: Connection) -> dict[str, int]:
    """Return the number of artefacts by state."""
    query = select(artefacts.c.state, func.count().label("n")).group_by(artefacts.c.state)
    return {row.state: row.n for row in connection.execute(query)}


def add_delivery(connection: Connection, artefact_id: str, target: str) -> str:
    """Record that an artefact is to be delivered to ``target``; return the delivery's id."""
    delivery_id = new_id("D")
    connection.execute(
        insert(deliveries).values(
            delivery_id=delivery_id,
            artefact_id=artefact_id,
            target=target,
            state=DeliveryState.PENDING.value,
            created_at=time.time(),
        )
    )
    return delivery_id


def next_delivery(
    connection: Connection, now: float, *, longest_s: float = math.inf
) -> tuple[Delivery, Artefact] | None:
    """Return the pending delivery that is due, oldest first.

    One that is to wait longer than ``longest_s`` was put off by a clock that has been set back since: it is due.
    """
    row = connection.execute(
        select(deliveries)
        .where(
            deliveries.c.state == DeliveryState.PENDING.value,
            or_(deliveries.c.not_before <= now, deliveries.c.not_before > now + longest_s),
        )
        .order_by(deliveries.c.created_at, deliveries.c.delivery_id)
        .limit(1)
    ).first()
    return None if row is None else (_delivery(row), get_artefact(connection, row.artefact_id))


def hurry(connection: Connection, study_id: str, version: int) -> None:
    """Let the pending deliveries of a study version be tried at once."""
    of_version = select(artefacts.c.artefact_id).where(artefacts.c.study_id == study_id, artefacts.c.version == version)
    connection.execute(
        update(deliveries)
        .where(deliveries.c.artefact_id.in_(of_version), deliveries.c.state == DeliveryState.PENDING.value)
        .values(not_before=0.0)
    )


def mark_sent(connection: Connection, delivery: Delivery, study_id: str, place: str) -> None:
    """Record that a delivery arrived at ``place``."""
    state = states.step(states.DELIVERY, delivery.state, "send")
    connection.execute(
        update(deliveries)
        .where(deliveries.c.delivery_id == delivery.delivery_id)
        .values(state=state.value, attempt=deliveries.c.attempt + 1, place=place, error="", done_at=time.time())
    )
    record(
        connection,
        actor="clinic-ai",
        action="delivery.sent",
        subject=study_id,
        details={"delivery": delivery.delivery_id, "target": delivery.target},
    )


def give_up(connection: Connection, delivery: Delivery, study_id: str, reason: str) -> None:
    """Record that a delivery will not be made, and why."""
    state = states.step(states.DELIVERY, delivery.state, "give_up")
    connection.execute(
        update(deliveries)
        .where(deliveries.c.delivery_id == delivery.delivery_id)
        .values(state=state.value, error=reason, done_at=time.time())
    )
    record(
        connection,
        actor="clinic-ai",
        action="delivery.given_up",
        subject=study_id,
        details={"delivery": delivery.delivery_id, "target": delivery.target, "reason": reason},
    )


def postpone(connection: Connection, delivery: Delivery, error: str, not_before: float) -> None:
    """Record that a delivery failed and when it is tried again."""
    connection.execute(
        update(deliveries)
        .where(deliveries.c.delivery_id == delivery.delivery_id)
        .values(attempt=deliveries.c.attempt + 1, error=error, not_before=not_before)
    )


def pending_deliveries(connection: Connection, study_id: str, version: int) -> int:
    """Return how many deliveries of a study version are not done."""
    query = (
        select(func.count())
        .select_from(deliveries.join(artefacts, artefacts.c.artefact_id == deliveries.c.artefact_id))
        .where(
            artefacts.c.study_id == study_id,
            artefacts.c.version == version,
            deliveries.c.state == DeliveryState.PENDING.value,
        )
    )
    return int(connection.execute(query).scalar_one())


def _is(artefact_id: str) -> Any:
    return artefacts.c.artefact_id == artefact_id


def artefact_of_row(connection: Connection, row: Row[Any]) -> Artefact:
    """Return the artefact of a row of its table, with files and deliveries."""
    sent = connection.execute(select(deliveries).where(deliveries.c.artefact_id == row.artefact_id)).all()
    return Artefact(
        artefact_id=row.artefact_id,
        job_id=row.job_id,
        study_id=row.study_id,
        version=row.version,
        audience=Audience(row.audience),
        state=ArtefactState(row.state),
        verdict=GuardVerdict.model_validate_json(row.verdict),
        files=files_of(connection, row.job_id),
        deliveries=tuple(_delivery(r) for r in sent),
        signed_by=row.signed_by,
        review_id=row.review_id,
        revision=row.revision,
        created_at=row.created_at,
    )


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(
        delivery_id=row.delivery_id,
        artefact_id=row.artefact_id,
        target=row.target,
        state=DeliveryState(row.state),
        attempt=row.attempt,
        place=row.place,
        error=row.error,
        done_at=row.done_at,
    )
