"""``clinic-ai guard``: try what the guard would say. Needs a daemon only if it is about one of its studies."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clinic_ai.cli.options import HomeOption, JsonOption, example, group, home_of

if TYPE_CHECKING:
    from clinic_ai.domain import Audience, GuardVerdict, StatementKind
    from clinic_ai.guard.asking import GuardCheck, QuestionVerdict

guard = group("guard", "The guard: what would become of a text or a question.")


class Reader(StrEnum):
    """The audiences, said once more: help must not wait for the models of the domain."""

    CLINICIAN = "clinician"
    PATIENT = "patient"
    TECHNICIAN = "technician"


class Kind(StrEnum):
    """What a draft would be; as above."""

    FINDING = "finding"
    ANSWER = "answer"
    REMARK = "remark"
    REFUSAL = "refusal"
    NOTICE = "notice"
    REPORT = "report"


@guard.command(
    "check", epilog=example('guard check --audience patient --text "No cancer." --question "How big is it?"')
)
def check(
    reader: Annotated[Reader, typer.Option("--audience", help="Who would read it.")],
    text: Annotated[str | None, typer.Option(help="A draft.")] = None,
    kind: Annotated[
        Kind, typer.Option(help="What the draft would be; patients and technicians read the template of that name.")
    ] = Kind.ANSWER,
    question: Annotated[str | None, typer.Option(help="A question.")] = None,
    study: Annotated[str | None, typer.Option(metavar="ID", help="The study it is about; asks the daemon.")] = None,
    language: Annotated[str | None, typer.Option(help="Language of the answer, such as en; else the clinic's.")] = None,
    pack: Annotated[
        Path | None,
        typer.Option(metavar="PACK", help="The pack to try: name or folder; else that of clinic.toml."),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what would become of a text and of a question. Exit code 1 if anything would be held or blocked."""
    from clinic_ai.cli.output import Exit, print_json
    from clinic_ai.domain import Audience, GuardAction

    audience = Audience(reader.value)
    if text is None and question is None:
        raise typer.BadParameter("Give --text, --question or both.")
    if study is not None and pack is not None:
        raise typer.BadParameter("A study is judged by the pack in force; leave out --pack or --study.")
    if study is not None:
        checked = _ask_daemon(home, study, audience, text, question, language, kind.value)
    else:
        checked = _ask_child(home, pack, audience, text, question, language, kind.value)
    if as_json:
        print_json(checked)
    else:
        _show(checked)
    kept = [v.action for v in (checked.text, checked.question) if v is not None]
    if any(action.severity >= GuardAction.HOLD.severity for action in kept):
        raise typer.Exit(Exit.FAILED)


def _ask_daemon(
    home: Path | None,
    study: str,
    audience: Audience,
    text: str | None,
    question: str | None,
    language: str | None,
    kind: StatementKind,
) -> GuardCheck:
    from clinic_ai.control.guard_client import GuardClient

    return GuardClient(home_of(home)).check_words(
        study, audience, text=text, question=question, language=language, kind=kind
    )


def _ask_child(
    home: Path | None,
    pack: Path | None,
    audience: Audience,
    text: str | None,
    question: str | None,
    language: str | None,
    kind: StatementKind,
) -> GuardCheck:
    from clinic_ai.cli.packs import find_pack
    from clinic_ai.domain import ImageFacts, Statement, StudyFacts
    from clinic_ai.guard.asking import GuardCheck
    from clinic_ai.guard.client import Guard
    from clinic_ai.guard.intents import question_subject
    from clinic_ai.processes import Crew
    from clinic_ai.settings import load_settings
    from clinic_ai.tasks import GuardSubject

    directory = find_pack(pack, home)
    if language is None:
        language = load_settings(home_of(home).clinic_toml).clinic.language
    # Of no study nothing is known: neither scale nor depth nor an earlier study, and no body part.
    subject = question_subject(StudyFacts(), ImageFacts(), language=language)
    plain = GuardSubject(facts=subject.facts, image=subject.image, language=language)
    crew = Crew()
    child = Guard(crew, directory)
    try:
        child.load()
        said = None if text is None else (Statement(statement_id="text", kind=kind, text=text),)
        return GuardCheck(
            text=None if said is None else child.judge(plain, audience, said),
            question=None if question is None else child.ask(subject, audience, question),
        )
    finally:
        child.close()
        crew.close()


def _show(checked: GuardCheck) -> None:
    if checked.text is not None:
        _show_text(checked.text)
    if checked.question is not None:
        _show_question(checked.question)


def _show_text(verdict: GuardVerdict) -> None:
    from clinic_ai.cli.output import say

    say(f"Text: {verdict.action.value}.")
    for decision in verdict.decisions:
        say(f"  {decision.rule}: {decision.action.value}. {decision.reason}")
    for released in verdict.released:
        say(f"  What {verdict.audience.value}s read: {released.text}")
        for note in released.annotations:
            say(f"  Note: {note}")
        if released.sources:
            say(f"  Made of: {', '.join(released.sources)}")


def _show_question(verdict: QuestionVerdict) -> None:
    from clinic_ai.cli.output import say

    say(f"Question: {verdict.action.value}{f' ({verdict.intent})' if verdict.intent else ''}.")
    if verdict.question:
        say(f"  The model would be asked: {verdict.question}")
    elif verdict.reason:
        say(f"  No model is asked: {verdict.reason}.".replace("..", "."))
    if verdict.reply is not None:
        say(f"  The answer: {verdict.reply.text}")
        say(f"  Made of: {', '.join(verdict.reply.sources)}")
    if verdict.example is not None:
        say(f"  With the picture {verdict.example.image}, approved by {verdict.example.approved_by}.")
