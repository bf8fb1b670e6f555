"""``clinic-ai file``: every file that was ever seen, and what people decide about those in quarantine."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from clinic_ai.cli.options import HomeOption, JsonOption, client_of, example, group, order_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clinic_ai.control.client import Client
    from clinic_ai.control.file_views import ComparisonView, FileView, SideView
    from clinic_ai.control.views import FileRow
    from clinic_ai.domain import FileDecision

files = group("file", "Every file that was ever seen, what became of it, and decisions about those in quarantine.")

WAIT_S = 30.0
"""How long `file accept` waits to say what became of the files; they are filed whether it waits or not."""
_POLL_S = 0.2
_SHOWN = 20

Numbers = Annotated[
    list[int] | None, typer.Argument(metavar="N...", help="Numbers of files, as `file list` shows them.", min=1)
]
AllOf = Annotated[
    str | None, typer.Option("--all-of", metavar="STUDY", help="All files that contradict this study, too.")
]


@files.command("list", epilog=example("file list --quarantined"))
def list_files(
    fate: Annotated[list[str] | None, typer.Option(metavar="FATE", help="Only this fate; may be repeated.")] = None,
    quarantined: Annotated[
        bool, typer.Option("--quarantined", help="Only files that wait in quarantine for a decision.")
    ] = False,
    study: Annotated[str | None, typer.Option(metavar="STUDY", help="Only files of this study.")] = None,
    source: Annotated[str | None, typer.Option(metavar="INBOX", help="Only files from this inbox or sender.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, metavar="N", help="Rows at most.")] = 50,
    before: Annotated[int | None, typer.Option(metavar="N", help="Only files with lower numbers.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List files, newest first, each with its fate and the reason."""
    from clinic_ai.cli.output import print_json, say

    fates = _fates([*(fate or []), *(["QUARANTINED"] if quarantined else [])])
    with client_of(home) as client:
        page = client.files(fates=fates, study_id=study, source=source, limit=limit, before=before)
    if as_json:
        print_json(page)
        return
    print_files(page.files)
    if page.next_before is not None:
        say(f"There are more than these {limit}; --before {page.next_before} shows the next.")


@files.command("show", epilog=example("file show 12"))
def show(
    number: Annotated[int, typer.Argument(metavar="N", help="Number of the file.", min=1)],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one file: where it came from and lies, why, and what may be decided.

    One that contradicts its study is shown beside what it contradicts. Exit code 1 if it waits for a decision.
    """
    from clinic_ai.cli.output import Exit, print_json, say
    from clinic_ai.errors import ClinicError

    comparison, trouble = None, None
    with client_of(home) as client:
        found = client.file(number)
        if found.conflict:
            try:
                comparison = client.compare_file(number)
            except ClinicError as error:
                trouble = error  # what is known of the file is worth showing all the same
    if as_json:
        print_json({**found.model_dump(mode="json"), "comparison": comparison and comparison.model_dump(mode="json")})
    else:
        _print_file(found)
        if comparison is not None:
            _print_comparison(comparison, found.file)
        if trouble is not None:
            say(f"{trouble.message} {trouble.remedy}")
    if found.choices:
        raise typer.Exit(Exit.FAILED)


@files.command("accept", epilog=example("file accept 12 13 --replace"))
def accept(
    numbers: Numbers = None,
    all_of: AllOf = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="It takes the place of the stored object with its SOP Instance UID.")
    ] = False,
    both: Annotated[
        bool, typer.Option("--both", help="It belongs beside that object, under a UID of the appliance's own.")
    ] = False,
    own_study: Annotated[
        bool, typer.Option("--own-study", help="It is of another patient: a study of its own.")
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let files out of the quarantine, in your name; without an option they are judged again.

    How a contradiction is settled (--replace, --both, --own-study) a clinician decides. All files are accepted or
    none. Exit code 1 if one of them was quarantined again.
    """
    from clinic_ai.cli.output import Exit, print_json, say
    from clinic_ai.control.file_views import AcceptOrder

    named = _named(numbers, all_of)
    decision = _decision(replace=replace, both=both, own_study=own_study)
    order = order_of(AcceptOrder, files=named, study=all_of, decision=decision)
    with client_of(home) as client:
        decided = client.accept_files(order)
        outcome = _outcome(client, decided.files)
    if as_json:
        print_json({**decided.model_dump(mode="json"), "outcome": [row.model_dump(mode="json") for row in outcome]})
    else:
        say(decided.sentence)
        print_files(outcome)
    if any(row.fate == "QUARANTINED" for row in outcome):
        raise typer.Exit(Exit.FAILED)


@files.command("discard", epilog=example('file discard 12 --reason "not a scan"'))
def discard(
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; kept for good, so do not name the patient.")],
    numbers: Numbers = None,
    all_of: AllOf = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove the bytes of quarantined files for good, in your name. Their rows stay, with the reason.

    Clinicians only.
    """
    from clinic_ai.cli.output import print_json, say
    from clinic_ai.control.file_views import DiscardOrder

    named = _named(numbers, all_of)
    order = order_of(DiscardOrder, files=named, study=all_of, reason=reason)
    if not yes:
        _ask(named, all_of)
    with client_of(home) as client:
        decided = client.discard_files(order)
    if as_json:
        print_json(decided)
    else:
        say(decided.sentence)


# ---------------------------------------------------------------- words in, words out


def _named(numbers: list[int] | None, all_of: str | None) -> tuple[int, ...]:
    from clinic_ai.control.file_views import MAX_FILES

    if not numbers and all_of is None:
        raise typer.BadParameter("name files by their numbers, or a study with --all-of.", param_hint="N")
    if numbers and len(numbers) > MAX_FILES:
        raise typer.BadParameter(f"at most {MAX_FILES} files at once.", param_hint="N")
    return tuple(numbers or ())


def _decision(*, replace: bool, both: bool, own_study: bool) -> FileDecision:
    from clinic_ai.domain import FileDecision

    asked = {FileDecision.REPLACE: replace, FileDecision.BOTH: both, FileDecision.OWN_STUDY: own_study}
    chosen = [decision for decision, wanted in asked.items() if wanted]
    if len(chosen) > 1:
        raise typer.BadParameter("only one of --replace, --both and --own-study.")
    return chosen[0] if chosen else FileDecision.AGAIN


def _ask(named: Sequence[int], all_of: str | None) -> None:
    what = [f"{len(named)} file{'' if len(named) == 1 else 's'}"] if named else []
    what += [f"all quarantined files that contradict study {all_of}"] if all_of else []
    if not sys.stdin.isatty():
        raise typer.BadParameter("nobody can be asked here: add --yes.", param_hint="--yes")
    typer.confirm(f"Remove the bytes of {' and of '.join(what)} for good?", abort=True)


def _outcome(client: Client, numbers: Sequence[int]) -> tuple[FileRow, ...]:
    """Wait until the files are filed, which happens in the order of their numbers; return the first of them."""
    until = time.monotonic() + WAIT_S
    while _pending(client.file(numbers[-1]).file) and time.monotonic() < until:
        time.sleep(_POLL_S)
    return tuple(client.file(number).file for number in numbers[:_SHOWN])


def _pending(row: FileRow) -> bool:
    from clinic_ai.domain import Fate

    return Fate(row.fate).pending


def _fates(words: list[str]) -> tuple[str, ...]:
    from clinic_ai.domain import Fate

    wrong = [word for word in words if word.upper() not in set(Fate)]
    if wrong:
        raise typer.BadParameter(f"{wrong[0]} is not a fate; they are {', '.join(Fate)}.", param_hint="--fate")
    return tuple(word.upper() for word in words)


def _end(name: str, room: int = 26) -> str:
    """Return the end of a long path, which tells more than its start."""
    return name if len(name) <= room else f"…{name[1 - room :]}"


def print_files(rows: tuple[FileRow, ...]) -> None:
    """Print files as a table."""
    from clinic_ai.cli.output import size, table

    body = (
        (str(row.file_id), _end(row.name), size(row.size_bytes), row.fate, f"{row.reason} {row.remedy}".strip())
        for row in rows
    )
    table(("no", "file", "size", "fate", "reason"), body, empty="No files.")


def _print_file(found: FileView) -> None:
    from clinic_ai.cli.output import fields, moment, size, styled

    row = found.file
    by = f"{row.decision}, by {row.decided_by}" if row.decided_by else ""
    fields(
        (
            ("file", styled(str(row.file_id), "strong")),
            ("name", row.name),
            ("source", row.source),
            ("seen", moment(row.seen_at)),
            ("size", size(row.size_bytes)),
            ("sha256", row.sha256 or ""),
            ("fate", f"{row.fate} {moment(row.decided_at)}".strip()),
            ("reason", f"{row.reason} ({row.reason_code})" if row.reason_code else row.reason),
            ("what to do", row.remedy),
            ("decided", by),
            ("study", row.study_id or ""),
            ("lies in", found.place),
        )
    )
    lines = [(f"file accept {row.file_id} {choice.option}".strip(), choice.meaning) for choice in found.choices]
    if found.choices:
        lines.append((f"file discard {row.file_id}", "its bytes are removed for good"))
    fields(lines)


def _print_comparison(comparison: ComparisonView, row: FileRow) -> None:
    from clinic_ai.cli.output import say, table

    say()
    sides = [("this file", comparison.arrived)]
    if comparison.stored is not None:
        sides.append(("stored", comparison.stored))
    columns = [_side(side) for _, side in sides]
    names = list(columns[0])
    rows = [(name, *(column[name] for column in columns)) for name in names]
    table(("", *(title for title, _ in sides)), rows, empty="")
    say(comparison.sentence)
    if comparison.stored is None:
        say(f"It names study {row.study_id}, whose patient is another.")


def _side(side: SideView) -> dict[str, str]:
    from clinic_ai.cli.output import size

    def number(value: int | None) -> str:
        return "–" if value is None else str(value)

    image = f"{side.rows} × {side.columns}" + (f", {side.frames} frames" if side.frames > 1 else "")
    return {
        "kind": side.kind or side.modality or "–",
        "study": f"{side.study_date} {side.study_description}".strip() or "–",
        "series": f"{number(side.series_number)} {side.series_description}".strip(),
        "image": number(side.instance_number),
        "rows × columns": image if side.rows else "no pixels",
        "size": size(side.size_bytes),
        "sha256": side.sha256[:16],
    }
