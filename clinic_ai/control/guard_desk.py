"""The route that tries the guard: what would become of a text or a question about a study. Nothing of it is kept."""

from __future__ import annotations

from fastapi import APIRouter

from clinic_ai.control.asking import Clinician, Having
from clinic_ai.control.guard_views import CheckOrder
from clinic_ai.control.services import Services
from clinic_ai.domain import Statement
from clinic_ai.guard.asking import GuardCheck
from clinic_ai.guard.examples import FOLDER, REMEDY, fitting, load_examples
from clinic_ai.guard.intents import HealthyExample, question_subject
from clinic_ai.results.evidence import subject_of
from clinic_ai.results.rendering import material_of
from clinic_ai.store import alerts, studies

router = APIRouter(prefix="/v1/guard", tags=["guard"])


@router.post("/check")
def check(order: CheckOrder, services: Having, person: Clinician) -> GuardCheck:  # noqa: ARG001 - the role
    """Return what would become of a text and of a question about this study's newest version."""
    with services.database.read() as connection:
        study = studies.get_study(connection, order.study_id)
        material = material_of(connection, study.study_id, study.version)
    subject = subject_of(
        material.study,
        material.instances,
        material.analyses,
        services.catalogue.manifests,
        validated=False,  # what a model may claim is the report's to say; here it is words that are tried
        language=order.language or services.settings().clinic.language,
    )
    asked = question_subject(
        subject.facts,
        subject.image,
        language=subject.language,
        identity=subject.identity,
        findings=subject.findings,
        example=fitting(_examples(services), subject.facts),
    )
    said = Statement(statement_id="text", kind=order.kind, text=order.text or "")
    return GuardCheck(
        text=None if order.text is None else services.guard.judge(subject, order.audience, (said,)),
        question=None if order.question is None else services.guard.ask(asked, order.audience, order.question),
    )


def _examples(services: Services) -> tuple[HealthyExample, ...]:
    """Return the healthy examples; one that cannot be shown raises an alert, for nobody would miss it."""
    examples, problems = load_examples(services.home.path / FOLDER)
    if problems:
        with services.database.write() as connection:
            alerts.raise_alert(connection, "example_unusable", "appliance", " ".join(problems), REMEDY)
    return examples
