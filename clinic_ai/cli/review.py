"""``clinic-ai review``: what waits for a person, and the decisions."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clinic_ai.cli.options import HomeOption, JsonOption, MonitorOption, example, group, home_of

if TYPE_CHECKING:
    from clinic_ai.control.review_client import ReviewClient
    from clinic_ai.control.review_views import ReviewView
    from clinic_ai.domain.reviews import Correction

review = group("review", "Results that wait for a clinician: read, accept, amend, reject.")

Which = Annotated[str, typer.Argument(metavar="ID", help="The artefact, or its study, as `review list` shows them.")]
As = Annotated[
    str | None, typer.Option("--as", metavar="NAME", help="Name to sign with, of [review] reviewers in clinic.toml.")
]
Consent = Annotated[
    bool | None,
    typer.Option("--consent/--no-consent", help="Whether models may learn from it; else [review] consent_default."),
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Findings = Annotated[
    list[str] | None,
    typer.Option(
        "--finding", metavar="CONDITION=present|absent|uncertain", help="What is there in truth; may be repeated."
    ),
]


@review.command("list", epilog=example("review list"))
def list_reviews(
    limit: Annotated[int, typer.Option(min=1, max=1000, metavar="N", help="Rows at most.")] = 50,
    home: HomeOption = None,
    as_json: JsonOption = False,
    monitor: MonitorOption = False,
) -> None:
    """List what waits for a clinician: held results first, then the oldest."""
    from clinic_ai.cli.output import moment, print_json, table

    with _client(home, monitor=monitor) as client:
        rows = client.reviews(limit)
    if as_json:
        print_json([row.model_dump(mode="json") for row in rows])
        return
    table(
        ("artefact", "study", "state", "since", "rules"),
        [
            (row.artefact_id, f"{row.study_id} v{row.version}", row.state, moment(row.created_at), ", ".join(row.rules))
            for row in rows
        ],
        empty="Nothing waits for a review.",
    )


@review.command("show", epilog=example("review show A-20261121-7F3K9QXB"))
def show(which: Which, name: As = None, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show what a result says, what the guard noted, and what was decided. Clinicians only."""
    from clinic_ai.cli.output import print_json

    with _client(home) as client:
        view = client.review(_artefact(client, which), name)
    if as_json:
        print_json(view)
    else:
        _print(view)


@review.command("accept", epilog=example("review accept A-20261121-7F3K9QXB"))
def accept(
    which: Which,
    name: As = None,
    consent: Consent = None,
    yes: Yes = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sign a result as it is, in your name. The final report follows in the outbox."""
    from clinic_ai.cli.output import print_done
    from clinic_ai.control.review_views import AcceptReview

    with _client(home) as client:
        view = client.review(_artefact(client, which), name)
        if not yes:
            _print(view)
            _ask("Sign this?")
        done = client.accept(view.row.artefact_id, AcceptReview(digest=view.digest, reviewer=name, consent=consent))
    print_done(done, as_json=as_json)


@review.command("amend", epilog=example("review amend A-20261121-7F3K9QXB --text words.txt"))
def amend(
    which: Which,
    text: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The words to sign; - reads standard input. Without it an editor opens."),
    ] = None,
    finding: Findings = None,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; kept for good, so do not name the patient.")] = "",
    name: As = None,
    consent: Consent = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sign a result in other words, or with other findings, in your name. Your words go through the guard too.

    In the text each statement follows its id in brackets, such as [f_1]; one that is left out is not said. A text
    without ids takes the place of everything.
    """
    from clinic_ai.cli.output import print_done, say
    from clinic_ai.control.review_client import from_edit, to_edit
    from clinic_ai.control.review_views import AmendReview

    corrections = _corrections(finding)
    with _client(home) as client:
        view = client.review(_artefact(client, which), name)
        written = _read(text) if text is not None else None
        if written is None and not corrections:
            import click

            written = click.edit(to_edit(view), extension=".txt")
            if written is None:
                say("Nothing was saved in the editor; nothing is decided.")
                raise typer.Exit(1)
        taken = [*(one.statement_id for one in view.statements), *view.withheld]
        order = AmendReview(
            digest=view.digest,
            reviewer=name,
            consent=consent,
            statements=None if written is None else from_edit(written, taken),
            corrections=corrections,
            reason=reason,
        )
        done = client.amend(view.row.artefact_id, order)
    print_done(done, as_json=as_json)


@review.command("reject", epilog=example('review reject A-20261121-7F3K9QXB --reason "wrong side"'))
def reject(
    which: Which,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; kept for good, so do not name the patient.")],
    finding: Findings = None,
    name: As = None,
    consent: Consent = None,
    yes: Yes = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let nothing of a result go out, in your name."""
    from clinic_ai.cli.output import print_done
    from clinic_ai.control.review_views import RejectReview

    corrections = _corrections(finding)
    with _client(home) as client:
        view = client.review(_artefact(client, which), name)
        if not yes:
            _print(view)
            _ask("Reject this?")
        done = client.reject(
            view.row.artefact_id,
            RejectReview(digest=view.digest, reviewer=name, consent=consent, reason=reason, corrections=corrections),
        )
    print_done(done, as_json=as_json)


@review.command("consent", epilog=example("review consent W-20261121-7F3K9QXB --no"))
def change_consent(
    which: Annotated[str, typer.Argument(metavar="REVIEW", help="The review, as `review show` names it.")],
    allow: Annotated[bool, typer.Option("--yes/--no", help="Whether models may learn from it.")] = True,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say afterwards whether models may learn from a review."""
    from clinic_ai.cli.output import print_done

    with _client(home) as client:
        done = client.consent(which, allow)
    print_done(done, as_json=as_json)


# ---------------------------------------------------------------- words in, words out


def _client(home: Path | None, *, monitor: bool = False) -> ReviewClient:
    from clinic_ai.control.review_client import ReviewClient

    return ReviewClient(home_of(home), monitor=monitor)


def _artefact(client: ReviewClient, which: str) -> str:
    """Return the id of an artefact, or of the one that waits of a study."""
    from clinic_ai.errors import NotFound

    if not which.startswith("S-"):
        return which
    waiting = [row.artefact_id for row in client.reviews(1000) if row.study_id == which]
    if len(waiting) != 1:
        raise NotFound(
            f"{len(waiting)} results of study {which} wait for a review.",
            remedy="`clinic-ai study show` names its artefacts; give one of those.",
        )
    return waiting[0]


def _corrections(findings: list[str] | None) -> tuple[Correction, ...]:
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


def _read(path: Path) -> str:
    from clinic_ai.errors import ClinicError

    try:
        return sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ClinicError(f"{path} cannot be read: {why}.", remedy="Give a text file.") from error


def _ask(question: str) -> None:
    if not sys.stdin.isatty():
        raise typer.BadParameter("nobody can be asked here; say --yes.", param_hint="--yes")
    typer.confirm(question, abort=True)


def _print(view: ReviewView) -> None:
    from clinic_ai.cli.output import fields, moment, say

    row = view.row
    fields(
        [
            ("artefact", f"{row.artefact_id}, {row.state}, for the {row.audience}"),
            ("study", f"{row.study_id}, version {row.version}"),
            ("findings", ", ".join(f"{f.condition} {f.presence.value}" for f in view.findings) or "none"),
        ]
    )
    say()
    for one in view.statements:
        say(f"[{one.statement_id}] {one.text}")
        for note in one.annotations:
            say(f"    note: {note}")
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
