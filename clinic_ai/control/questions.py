"""The routes of questions about images, on the control socket alone.

What clinicians ask needs their role, for they read what a model said. A patient reads templates of the policy pack
only, whatever a model says, so a technician may ask in a patient's place.
"""

from __future__ import annotations

from fastapi import APIRouter, Request

from clinic_ai.control.asking import Anyone, Content, Having, Id, content
from clinic_ai.control.pages import QuestionPage
from clinic_ai.control.paging import Before, Limit, page_of
from clinic_ai.control.question_views import AskedView, AskOrder
from clinic_ai.control.slowly import QUESTIONS, slowly
from clinic_ai.domain import AskedQuestion, Audience

router = APIRouter(prefix="/v1/studies", tags=["questions"])


@router.post("/{study_id}/questions")
@slowly(QUESTIONS)
def ask(study_id: Id, order: AskOrder, services: Having, person: Anyone, request: Request) -> AskedView:
    """Answer a question about one image of a study; it is recorded, and who asked it."""
    audience = Audience(order.audience)
    if audience is Audience.CLINICIAN:
        content(request)
    asked = services.questions.ask(
        study_id,
        order.question,
        audience,
        person.name,
        image=order.image,
        frame=None if order.frame is None else order.frame - 1,
    )
    return _view(asked)


@router.get("/{study_id}/questions")
def get_questions(
    study_id: Id,
    services: Having,
    person: Content,  # noqa: ARG001 - the role
    limit: Limit = 100,
    before: Before = None,
) -> QuestionPage:
    """Return the questions that were asked about a study, oldest first."""
    rows, goes_on = page_of(services.questions.asked_of(study_id), limit, before, lambda asked: asked.question_id)
    return QuestionPage(questions=tuple(map(_view, rows)), next_before=goes_on)


def _view(asked: AskedQuestion) -> AskedView:
    kept, said = asked.document, asked.document.released
    return AskedView(
        question_id=asked.question_id,
        study_id=asked.study_id,
        version=asked.version,
        audience=asked.audience.value,
        asked_by=asked.asked_by,
        asked_at=asked.asked_at,
        question=asked.question,
        outcome=asked.outcome,
        text="" if said is None else said.text,
        annotations=() if said is None else said.annotations,
        marks=kept.marks,
        reason=kept.reason,
        remedy=kept.remedy,
        image=kept.image,
        frame=None if kept.frame is None else kept.frame + 1,
        category=kept.category,
        adapter=kept.adapter,
        models=kept.models,
        confidence=kept.confidence,
        example=kept.example,
        seconds=kept.seconds,
        policy_hash=asked.policy_hash,
    )
