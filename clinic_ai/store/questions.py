"""Questions that people asked about images, and what became of each; written once, never changed."""

from __future__ import annotations

from sqlalchemy import Connection, insert, select

from clinic_ai.domain import AskedQuestion, QuestionDocument
from clinic_ai.store.audit import record
from clinic_ai.store.tables import questions


def add_question(connection: Connection, asked: AskedQuestion) -> None:
    """Store a question with what became of it, and its audit row, in the caller's transaction.

    The document holds released text alone: what a model said and the guard kept back is stored nowhere. The audit row
    has neither question nor answer.
    """
    values = asked.model_dump(mode="json")
    values["document"] = asked.document.model_dump_json()
    connection.execute(insert(questions).values(**values))
    record(
        connection,
        actor=asked.asked_by,
        action="study.question",
        subject=asked.study_id,
        details={
            "question": asked.question_id,
            "version": asked.version,
            "audience": asked.audience.value,
            "outcome": asked.outcome.value,
            "plugin": asked.document.plugin,
            "models": list(asked.document.models),
            "policy": asked.policy_hash,
        },
    )


def questions_of(connection: Connection, study_id: str) -> list[AskedQuestion]:
    """Return the questions asked about a study, oldest first."""
    query = select(questions).where(questions.c.study_id == study_id).order_by(questions.c.asked_at)
    return [
        AskedQuestion.model_validate(row._asdict() | {"document": QuestionDocument.model_validate_json(row.document)})
        for row in connection.execute(query)
    ]
