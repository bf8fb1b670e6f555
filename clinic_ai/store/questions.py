"""Questions people asked about studies; rows are written once and never changed."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, insert, select

from clinic_ai.domain import Asked, AskedDocument
from clinic_ai.store.audit import record
from clinic_ai.store.tables import questions


def add_question(connection: Connection, asked: Asked) -> None:
    """Store a question with what became of it, and its audit row, which holds no word of either."""
    values = asked.model_dump(mode="json")
    values["document"] = asked.document.model_dump_json()
    connection.execute(insert(questions).values(**values))
    record(
        connection,
        actor=asked.asked_by,
        action="question.asked",
        subject=asked.study_id,
        details={
            "question": asked.question_id,
            "version": asked.version,
            "audience": asked.audience.value,
            "outcome": asked.outcome.value,
            "rule": asked.document.rule,
            "models": list(asked.document.models),
            "policy": asked.policy_hash,
        },
    )


def questions_of(connection: Connection, study_id: str) -> list[Asked]:
    """Return what was asked about any version of a study, the first question first."""
    query = select(questions).where(questions.c.study_id == study_id).order_by(questions.c.asked_at)
    return [_asked(row) for row in connection.execute(query)]


def _asked(row: Row[Any]) -> Asked:
    document = AskedDocument.model_validate_json(row.document)
    return Asked.model_validate({**row._mapping, "document": document})
