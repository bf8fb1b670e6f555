"""``clinic-ai study ask`` and ``study questions``: questions about an image, and what became of those before."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from clinic_ai.cli.options import HomeOption, JsonOption, home_of, order_of

if TYPE_CHECKING:
    from clinic_ai.control.question_views import AskedView

Which = Annotated[str, typer.Argument(metavar="STUDY", help="Id of the study, as `study list` shows it.")]


class Reader(StrEnum):
    """Who may read an answer, said once more: help must not wait for the models of the domain."""

    CLINICIAN = "clinician"
    PATIENT = "patient"


def ask_study(
    study_id: Which,
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="The question, in quotes.")],
    reader: Annotated[Reader, typer.Option("--audience", help="Who reads the answer.")] = Reader.CLINICIAN,
    image: Annotated[
        str | None,
        typer.Option(metavar="N", help="Which image: its number from 1, or 8 digits or more of its SHA-256."),
    ] = None,
    frame: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Which frame, from 1; else the plugin chooses.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a question about an image of a study. The question and who asked it are recorded.

    Exit code 8 if the guard keeps the answer back, 1 if the plugin does not answer.
    """
    from clinic_ai.cli.output import Exit, print_json
    from clinic_ai.control.question_client import QuestionClient
    from clinic_ai.control.question_views import AskOrder
    from clinic_ai.domain import QuestionOutcome

    order = order_of(AskOrder, question=question, audience=reader.value, image=image, frame=frame)
    with QuestionClient(home_of(home)) as client:
        asked = client.ask(study_id, order)
    if as_json:
        print_json(asked)
    else:
        _print(asked)
    if asked.outcome is QuestionOutcome.HELD:
        raise typer.Exit(Exit.HELD)
    if asked.outcome is QuestionOutcome.REFUSED:
        raise typer.Exit(Exit.FAILED)


def list_questions(study_id: Which, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the questions that were asked about a study, with what was answered. Clinicians only."""
    from clinic_ai.cli.output import moment, print_json, say, styled
    from clinic_ai.control.question_client import QuestionClient

    with QuestionClient(home_of(home)) as client:
        found = client.questions(study_id)
    if as_json:
        print_json([asked.model_dump(mode="json") for asked in found])
        return
    if not found:
        say("Nobody asked about this study.")
    for number, asked in enumerate(found):
        if number:
            say()
        say(styled(f"{moment(asked.asked_at)}  {asked.asked_by}, for a {asked.audience}: {asked.outcome}", "faint"))
        say(asked.question)
        _print(asked)


def _print(asked: AskedView) -> None:
    """Print what became of a question, then in a dim line who answered and how sure."""
    from clinic_ai.cli.output import say, styled

    for line in (asked.text, *asked.annotations, *asked.marks):
        if line:
            say(line)
    if not asked.text:
        say(f"There is no answer ({asked.outcome}). {asked.reason}".rstrip())
        if asked.remedy:
            say(f"→ {asked.remedy}")
    if asked.example:
        say(f"With the picture of the healthy example {asked.example}.")
    say(styled(_who_answered(asked), "faint"))


def _who_answered(asked: AskedView) -> str:
    about = f"image {asked.image}" + (f", frame {asked.frame}" if asked.frame is not None else "")
    if not asked.models:
        return f"About {about}; no model answered."
    who = f"the adapter {asked.adapter}" if asked.adapter else "the base model, no adapter"
    sure = "unknown" if asked.confidence is None else f"{asked.confidence:.0%}"
    return f"About {about}, by {who} ({', '.join(asked.models)}); probability of being right: {sure}."
