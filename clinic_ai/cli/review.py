"""``clinic-ai review``: what waits for a person, and the decisions."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clinic_ai.cli.options import HomeOption, JsonOption, MonitorOption, example, group, home_of, order_of
from clinic_ai.cli.review_words import (
    check_can_ask,
    corrections_of,
    edited,
    print_amended,
    print_review,
    read_text,
)

if TYPE_CHECKING:
    from clinic_ai.control.review_client import ReviewClient

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
    from clinic_ai.cli.output import age, print_json, table

    with _client(home, monitor=monitor) as client:
        rows = client.reviews(limit)
    if as_json:
        print_json([row.model_dump(mode="json") for row in rows])
        return
    table(
        ("artefact", "study", "state", "waits", "rules"),
        [
            (row.artefact_id, row.study_id, row.state, age(time.time() - row.created_at), ", ".join(row.rules))
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
        print_review(view)


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

    check_can_ask(yes=yes)
    with _client(home) as client:
        view = client.review(_artefact(client, which), name, deciding=True)
        order = order_of(AcceptReview, digest=view.digest, reviewer=name, consent=consent)
        if not yes:
            print_review(view)
            typer.confirm(f"Sign this as {view.signer}?", abort=True)
        done = client.accept(view.row.artefact_id, order)
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
    yes: Yes = False,
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

    check_can_ask(yes=yes)
    corrections = corrections_of(finding)
    with _client(home) as client:
        view = client.review(_artefact(client, which), name, deciding=True)
        written = read_text(text) if text is not None else None
        if written is None and not corrections:
            written = edited(to_edit(view))
            if written is None:
                say("Nothing was saved in the editor; nothing is decided.")
                raise typer.Exit(1)
        taken = [*(one.statement_id for one in view.statements), *view.withheld]
        order = order_of(
            AmendReview,
            digest=view.digest,
            reviewer=name,
            consent=consent,
            statements=None if written is None else from_edit(written, taken),
            corrections=corrections,
            reason=reason.strip(),
        )
        if not yes:
            print_amended(view, order)
            typer.confirm(f"Sign this as {view.signer}?", abort=True)
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

    check_can_ask(yes=yes)
    corrections = corrections_of(finding)
    with _client(home) as client:
        view = client.review(_artefact(client, which), name, deciding=True)
        order = order_of(
            RejectReview,
            digest=view.digest,
            reviewer=name,
            consent=consent,
            reason=reason.strip(),
            corrections=corrections,
        )
        if not yes:
            print_review(view)
            typer.confirm(f"Reject this as {view.signer}?", abort=True)
        done = client.reject(view.row.artefact_id, order)
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


@review.command("conditions", epilog=example("review conditions"))
def conditions(as_json: JsonOption = False) -> None:
    """List the conditions that --finding may name, with how reports call them. Needs no daemon."""
    from clinic_ai.cli.output import print_json, table
    from clinic_ai.results import codes

    rows = [(condition, entry.label) for condition, entry in sorted(codes.table().items())]
    if as_json:
        print_json([{"condition": condition, "label": label} for condition, label in rows])
    else:
        table(("condition", "in reports"), rows, empty="There is none.")


# ---------------------------------------------------------------- words in, words out


def _client(home: Path | None, *, monitor: bool = False) -> ReviewClient:
    from clinic_ai.control.review_client import ReviewClient

    return ReviewClient(home_of(home), monitor=monitor)


def _artefact(client: ReviewClient, which: str) -> str:
    """Return the id of an artefact, or of the one that waits of a study."""
    from clinic_ai.errors import NotFound

    if not which.startswith("S-"):
        return which
    waiting = [row.artefact_id for row in client.all_reviews() if row.study_id == which]
    if len(waiting) != 1:
        raise NotFound(
            f"{len(waiting)} results of study {which} wait for a review.",
            remedy="`clinic-ai study show` names its artefacts; give one of those.",
        )
    return waiting[0]
