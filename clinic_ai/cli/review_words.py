"""Words in and out of ``clinic-ai review``: what a person types, edits and reads."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from clinic_ai.control.review_views import AmendReview, ReviewView
    from clinic_ai.domain.reviews import Correction


def check_can_ask(*, yes: bool) -> None:
    """Raise typer.BadParameter if the question before a decision could not be answered here."""
    if not yes and not sys.stdin.isatty():
        raise typer.BadParameter("nobody can be asked here; say --yes. Nothing was decided.", param_hint="--yes")


def edited(text: str) -> str | None:
    """Let a person edit a text; return None if nothing was saved. Raise ClinicError if no editor can run here."""
    import click

    from clinic_ai.errors import ClinicError

    remedy = "Give the words with --text FILE, or --text - for standard input; or set $EDITOR. Nothing was decided."
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ClinicError("There is no terminal here to open an editor in.", remedy=remedy)
    try:
        return click.edit(text, extension=".txt")
    except UnicodeDecodeError as error:
        raise ClinicError("The editor did not save UTF-8.", remedy=remedy) from error
    except (click.ClickException, ValueError) as error:  # ValueError: $EDITOR has a quote without its other half
        raise ClinicError("The editor did not start, or failed.", remedy=remedy) from error


def corrections_of(findings: list[str] | None) -> tuple[Correction, ...]:
    from pydantic import ValidationError

    from clinic_ai.domain import Presence
    from clinic_ai.domain.reviews import Correction

    made = []
    for finding in findings or []:
        condition, _, presence = finding.partition("=")
        try:
            made.append(Correction(condition=condition, presence=Presence(presence)))
        except (ValueError, ValidationError):
            words = "write CONDITION=present, CONDITION=absent or CONDITION=uncertain."
            raise typer.BadParameter(words, param_hint="--finding") from None
    return tuple(made)


def read_text(path: Path) -> str:
    from clinic_ai.errors import ClinicError

    try:
        return sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ClinicError(f"{path} cannot be read: {why}.", remedy="Give a text file.") from error


def print_review(view: ReviewView) -> None:
    """Print a result as a person signs it: whom it is about, what it says, what the guard and others said of it."""
    from clinic_ai.cli.output import moment, say
    from clinic_ai.domain import headed

    _print_subject(view)
    for heading, one in headed(view.statements):
        if heading:
            say(f"{heading}:")
        say(f"[{one.statement_id}] {one.text}")
        for note in one.annotations:
            say(f"    note: {note}")
    for rule, action, reason in dict.fromkeys((d.rule, d.action, d.reason) for d in view.original_decisions):
        if action in {"hold", "block"}:
            say(f"Held by: {rule}, {action}: {reason}")
    if view.withheld:
        say(f"Kept back by the guard: {', '.join(view.withheld)}")
    for decision in dict.fromkeys((d.rule, d.action, d.reason) for d in view.decisions if d.action != "allow"):
        say(f"Guard: {decision[0]}, {decision[1]}: {decision[2]}")
    for mark in view.marks:
        say(f"Mark: {mark}")
    for made in view.history:
        consent = "may be learned from" if made.consent else "not for learning"
        say(f"{moment(made.decided_at)} {made.reviewer}: {made.decision} ({made.review_id}, {consent}) {made.reason}")
        for line in made.diff.splitlines():
            say(f"    {line}")


def print_amended(view: ReviewView, order: AmendReview) -> None:
    """Print what an order to amend would sign: whom it is about, the new words, the corrections."""
    from clinic_ai.cli.output import say

    _print_subject(view)
    for one in view.statements if order.statements is None else order.statements:
        say(f"[{one.statement_id}] {one.text}")
    said = () if order.statements is None else order.statements
    left_out = {one.statement_id for one in view.statements} - {one.statement_id for one in said}
    if order.statements is not None and left_out:
        say(f"Left out: {', '.join(f'[{key}]' for key in sorted(left_out))}")
    for correction in order.corrections:
        say(f"Corrected: {correction.condition} {correction.presence.value}")


def _print_subject(view: ReviewView) -> None:
    from clinic_ai.cli.output import fields, say, table
    from clinic_ai.guard.wording import percent

    row, who = view.row, view.subject
    fields(
        [
            ("patient", who.patient),
            ("exam", who.exam),
            ("study date", who.dates),
            ("study", f"{row.study_id}, version {row.version}"),
            ("artefact", f"{row.artefact_id}, {row.state}, for the {row.audience}"),
        ]
    )
    say()
    if view.findings:
        table(
            ("finding", "side", "software says", "probability", "threshold"),
            [
                (
                    f.label,
                    f.laterality or "–",
                    f.presence.value,
                    f"{percent(f.probability)} %",
                    f"{percent(f.threshold)} %",
                )
                for f in view.findings
            ],
            empty="",
            wide=0,
        )
    else:
        say("No model gave a finding with a probability.")
    say()
