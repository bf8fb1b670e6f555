"""``clinic-ai study ask`` and ``study questions``: a question about an image, and what the guard let out."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clinic_ai.cli.options import HomeOption, JsonOption, home_of

if TYPE_CHECKING:
    from clinic_ai.control.question_client import QuestionClient
    from clinic_ai.domain import Asked

StudyArgument = Annotated[str, typer.Argument(metavar="STUDY", help="Id of the study, as `study list` shows it.")]


class For(StrEnum):
    """Whom an answer is meant for."""

    CLINICIAN = "clinician"
    PATIENT = "patient"


def study_ask(
    study_id: StudyArgument,
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="What you want to know of the image.")],
    audience: Annotated[For, typer.Option(help="Whom the answer is for; patients read templates only.")] = (
        For.CLINICIAN
    ),
    image: Annotated[
        str, typer.Option(metavar="N", help="Number of the image, from 1, or the beginning of its SHA-256.")
    ] = "",
    frame: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Frame of a loop, from 1; else one is chosen.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a question about an image of a study. The guard hears it first, and judges the answer.

    Exit code 1 if there is no answer: it is held, refused, or the engine failed.
    """
    from clinic_ai.cli.output import Exit, print_json
    from clinic_ai.control.question_views import QuestionOrder

    try:
        order = QuestionOrder(question=question, audience=audience.value, image=image, frame=frame)
    except ValueError as error:
        raise typer.BadParameter("A question has 1 to 2000 characters; an image is a number or a hash.") from error
    with _client(home) as client:
        asked = client.ask(study_id, order)
    if as_json:
        print_json(asked)
    else:
        _print(asked)
    if asked.document.answer is None:
        raise typer.Exit(Exit.FAILED)


def study_questions(study_id: StudyArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List what was asked about a study, by whom and for whom, and what went out."""
    from clinic_ai.cli.output import moment, print_json, say, styled

    with _client(home) as client:
        found = client.asked(study_id)
    if as_json:
        print_json(found)
        return
    if not found:
        say("Nobody has asked anything about this study.")
    for asked in found:
        by = f"{moment(asked.asked_at)}, {asked.asked_by} for a {asked.audience.value}: {asked.outcome.value}"
        say(styled(by, "strong"))
        if asked.document.answer is None or asked.outcome.value == "template":
            say(asked.question)
        _print(asked)
        say()


def _print(asked: Asked) -> None:
    from clinic_ai.cli.output import say, styled

    document = asked.document
    if document.answer is None:
        say(styled(document.sentence or "There is no answer.", "wait"))
        if document.remedy:
            say(f"  {document.remedy}")
    else:
        say(document.answer.text)
        for note in (*document.answer.annotations, *document.marks):
            say(f"  {note}")
    say(styled(_origin(asked), "faint"))


def _origin(asked: Asked) -> str:
    """Return in one line where an answer comes from."""
    document = asked.document
    if not document.models:
        who = f"the policy pack ({document.rule})" if document.rule else "the policy pack"
        return f"From {who}; no model was asked. {document.seconds:.1f} s."
    parts = [f"image {document.image}"]
    if document.frame is not None:
        parts.append(f"frame {document.frame}")
    if document.category:
        parts.append(f"category {document.category}")
    if document.answer is not None:
        parts.append(f"by the adapter {document.adapter}" if document.adapter else "by the base")
    if document.confidence is not None:
        parts.append(f"{document.confidence:.0%} sure")
    return f"{', '.join(parts)}; {', '.join(document.models)}. {document.seconds:.1f} s."


def _client(home: Path | None) -> QuestionClient:
    from clinic_ai.control.question_client import QuestionClient

    return QuestionClient(home_of(home))
