"""``clinic-ai model check``, ``approve``, ``promote``, ``canary``, ``record``: how a candidate comes to be in use."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clinic_ai.cli.options import HomeOption, JsonOption, home_of

if TYPE_CHECKING:
    from clinic_ai.gating import GateReport
    from clinic_ai.promoting import CanaryResult, Shadow

Plugin = Annotated[str, typer.Argument(metavar="PLUGIN", help="Name of the plugin.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the model.")]
Version = Annotated[str, typer.Argument(metavar="VERSION", help="Version of the model.")]
Person = Annotated[
    str | None, typer.Option("--as", metavar="NAME", help="Who approves: a name of [review] reviewers in clinic.toml.")
]
Reason = Annotated[str, typer.Option(metavar="TEXT", help="Why; it stands in the record.")]


def check_model(
    plugin: Plugin, name: Name, version: Version, home: HomeOption = None, as_json: JsonOption = False
) -> None:
    """Hold a candidate against the model in use, on test patients nobody trained on. Exit code 1 if it does not pass.

    A run does so by itself; this does it again, for instance after another model was promoted.
    """
    from clinic_ai.cli.offline import promoting
    from clinic_ai.cli.output import Exit, print_json, say

    with promoting(home_of(home)) as desk:
        if not as_json:
            say("Both models judge the test patients; this takes a while.")
        report = desk.check_model(plugin, name, version)
    if as_json:
        print_json(report)
    else:
        _tell(report)
    if not report.passed:
        raise typer.Exit(Exit.FAILED)


def approve_model(
    plugin: Plugin,
    name: Name,
    version: Version,
    reviewer: Person = None,
    reason: Reason = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Approve a candidate that passed, in the name of a person; an administrator promotes it."""
    from clinic_ai.cli.offline import promoting
    from clinic_ai.cli.output import print_done
    from clinic_ai.control.promotion_views import ApproveOrder

    order = ApproveOrder(plugin=plugin, name=name, version=version, reviewer=reviewer, reason=reason)
    with promoting(home_of(home)) as desk:
        print_done(desk.approve_model(order), as_json=as_json)


def promote_model(
    plugin: Plugin,
    name: Name,
    version: Version,
    reviewer: Person = None,
    reason: Reason = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a model the active one of its slot; jobs leased before keep the model they pinned.

    A candidate needs an examination that it passed, against the model that is in use now, and the approval of a person:
    one that was given before, or --as gives it.
    """
    from clinic_ai.cli.offline import promoting
    from clinic_ai.cli.output import print_done
    from clinic_ai.control.promotion_views import PromoteOrder

    order = PromoteOrder(plugin=plugin, name=name, version=version, reviewer=reviewer, reason=reason)
    with promoting(home_of(home)) as desk:
        print_done(desk.promote_model(order), as_json=as_json)


def run_canary(
    plugin: Plugin,
    name: Name,
    version: Version,
    hours: Annotated[float, typer.Option(min=0.01, max=744, help="Studies analysed in the last so many hours.")] = 24.0,
    most: Annotated[int, typer.Option(min=1, max=1000, help="Studies at most.")] = 50,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a candidate in the shadow on studies of late, and show what it would have said otherwise.

    Nothing of it is released, no report and no alert is made; studies that wait go first.
    """
    from clinic_ai.cli.offline import promoting
    from clinic_ai.cli.output import print_json, say
    from clinic_ai.control.promotion_views import CanaryOrder

    order = CanaryOrder(plugin=plugin, name=name, version=version, hours=hours, most=most)
    with promoting(home_of(home)) as desk:
        if not as_json:
            say("The candidate judges studies beside the model in use; studies that wait go first.")
        found = desk.run_canary(order)
    if as_json:
        print_json(found)
    else:
        _tell_canary(found)


def model_record(
    plugin: Plugin,
    name: Name,
    version: Version,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", dir_okay=False, help="Write it there: .json or Markdown.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write what stands behind a model: what changes, data, tests, who approved it and how to take it back.

    Before a promotion it is the plan of the change, afterwards its record.
    """
    from clinic_ai.cli.offline import promoting
    from clinic_ai.cli.output import print_json, say, say_raw
    from clinic_ai.cli.record_words import document
    from clinic_ai.errors import Conflict

    with promoting(home_of(home)) as desk:
        record = desk.model_record(plugin, name, version)
    if output is not None:
        text = record.model_dump_json(indent=1) + "\n" if output.suffix == ".json" else document(record)
        try:
            output.write_text(text, encoding="utf-8")
        except OSError as error:
            raise Conflict(f"{output} cannot be written: {error.strerror}.", remedy="Name another file.") from error
        say(f"{output} is written.")
    elif as_json:
        print_json(record)
    else:
        say_raw(document(record))


def _tell(report: GateReport) -> None:
    from clinic_ai.cli.output import say, table
    from clinic_ai.cli.record_words import figure_rows

    if report.comparison is not None:
        rows = figure_rows(report.comparison)
        table(("test part", "examples", "patients", "candidate", "in use", "difference"), rows, empty="")
    words = f"{report.plugin} {report.name} {report.version}"
    say(f"{words} {'passed' if report.passed else 'did not pass'}.")
    for sentence in (*report.reasons, *report.doubts, *report.notes):
        say(sentence)
    if report.passed:
        say(f"`clinic-ai model promote {words} --as NAME` approves it and makes it active.")


def _tell_canary(found: CanaryResult) -> None:
    from clinic_ai.cli.output import say, table

    rows = ((shadow.study_id, _differences(shadow)) for shadow in found.differing)
    table(("study", "what differs"), rows, empty="Nobody would have read anything else.")
    largest = max((shadow.document.largest_change for shadow in found.shadows), default=0.0)
    say(
        f"{len(found.differing)} of {len(found.shadows)} studies would read otherwise; the largest change of a "
        f"probability is {largest:.3f}. Nothing of this was released."
    )
    for study_id, why in found.why_not.items():
        say(f"Not run on {study_id}: {why}")
    if found.sentence:
        say(found.sentence)


def _differences(shadow: Shadow) -> str:
    found = shadow.document
    moves = Counter(
        f"{finding.condition} {_word(finding.before)} → {_word(finding.after)}"
        for finding in found.findings
        if finding.before is not finding.after
    )
    words = [f"{move} ({count} image{'' if count == 1 else 's'})" for move, count in moves.items()]
    if found.findings:
        words.append(f"largest change of a probability {found.largest_change:.3f}")
    if found.answers_changed:
        words.append(f"{found.answers_changed} of {found.answers} answers")
    if found.refusals_before != found.refusals_after:
        words.append(f"refusals {found.refusals_before} → {found.refusals_after}")
    if found.guard_before is not found.guard_after:
        words.append(f"guard {found.guard_before.value} → {found.guard_after.value}")
    return "; ".join(words)


def _word(presence: object) -> str:
    return "not judged" if presence is None else str(presence)
