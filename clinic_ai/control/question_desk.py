"""The routes about questions: asked on the control socket only, and answered with what the guard let out."""

from __future__ import annotations

from fastapi import APIRouter, Request

from clinic_ai.control.asking import Anyone, Content, Having, content
from clinic_ai.control.question_views import QuestionOrder
from clinic_ai.domain import Asked, Audience
from clinic_ai.questions import Question

router = APIRouter(prefix="/v1/studies", tags=["questions"])


@router.post("/{study_id}/questions")
def ask(study_id: str, order: QuestionOrder, services: Having, person: Anyone, request: Request) -> Asked:
    """Ask a question about an image of a study; what the answer says to clinicians, clinicians ask.

    What goes to a patient is made of the policy pack's templates alone, so a technician may ask for one.
    """
    audience = Audience(order.audience)
    if audience is Audience.CLINICIAN:
        content(request)
    question = Question(study_id=study_id, text=order.question, audience=audience, image=order.image, frame=order.frame)
    return services.questions.ask(question, person.name)


@router.get("/{study_id}/questions")
def asked(study_id: str, services: Having, person: Content) -> list[Asked]:  # noqa: ARG001 - the role
    """Return what was asked about a study, and what went out, the first question first."""
    return services.questions.asked_about(study_id)
