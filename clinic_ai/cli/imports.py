"""``clinic-ai import``: media in, with the rights of who types it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clinic_ai.cli.options import HomeOption, JsonOption, folder_client_of

if TYPE_CHECKING:
    from clinic_ai.cli.medium import Medium, MediumFile, Survey
    from clinic_ai.control.folder_client import FolderClient
    from clinic_ai.control.folder_views import ImportFile, ImportView

POLL_S = 0.5
STILL_S = 120.0
"""When nothing was filed for this long, the command ends and says so."""
MAX_NAMED = 20
"""Unreadable files named one by one; ``--json`` names all."""


@dataclass
class Sent:
    """What the command line did: files sent, files that were there already, and those that could not be read."""

    files: int = 0
    here_already: int = 0
    too_large: list[str] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)


def source_name(name: str) -> str:
    """Return the name if a source may bear it. Raise BadParameter if not."""
    from pydantic import TypeAdapter, ValidationError

    from clinic_ai.settings.kinds import SourceName

    try:
        return TypeAdapter(SourceName).validate_python(name)
    except ValidationError as error:
        raise typer.BadParameter("It has to be letters, digits, spaces, dots, underscores and hyphens.") from error


def import_medium(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the medium; it is only read.")],
    source: Annotated[
        str, typer.Option(metavar="NAME", help="Source of the studies, for routing rules.", callback=source_name)
    ] = "import",
    everything: Annotated[bool, typer.Option("--all", help="Also programs and pictures of a viewer.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be imported, and import nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Import a CD, a stick or a folder. Your rights read it; nothing on it is changed, and nothing is imported twice.

    Exit code 1 if something could not be read, or lies in quarantine.
    """
    from clinic_ai.cli.medium import Medium
    from clinic_ai.cli.output import Exit, print_json, say

    with Medium(directory) as medium:
        survey = medium.survey(everything=everything)
        if not as_json:
            _print_survey(directory, survey)
        if dry_run or not survey.files:
            if as_json:
                print_json(_survey_json(survey))
            raise typer.Exit(Exit.FAILED if survey.unreadable or not survey.files else Exit.DONE)
        if not yes:
            if not sys.stdin.isatty():
                raise typer.BadParameter("There is no terminal to ask at; --yes imports without asking.")
            typer.confirm(f"Import them as from “{source}”?", abort=True)
        with folder_client_of(home) as client:
            sent, view = _carry(client, medium, survey, source)
    sent.unreadable[:0] = survey.unreadable
    if as_json:
        print_json(_survey_json(survey) | _sent_json(sent) | view.model_dump(mode="json"))
    else:
        _print_end(sent, view)
        if view.pending:
            say("The rest is filed while you do other things; `clinic-ai status` says what it waits for.")
    if sent.unreadable or sent.too_large or view.remarks or view.pending:
        raise typer.Exit(Exit.FAILED)


# ---------------------------------------------------------------- carrying


def _carry(client: FolderClient, medium: Medium, survey: Survey, source: str) -> tuple[Sent, ImportView]:
    """Send what the daemon does not have, and wait until it is filed. Raise NoDaemon, in other words, if that stops."""
    from clinic_ai.control.client import NoDaemon
    from clinic_ai.control.folder_views import ImportOrder

    sent = Sent()
    try:
        order = ImportOrder(
            source=source, listing=survey.listing(), files=len(survey.files), size_bytes=survey.size_bytes
        )
        begun = client.begin_import(order)
        _send_all(client, medium, survey, begun, sent)
        view = client.end_import(begun.import_id, sent.files, len(survey.unreadable) + len(sent.unreadable))
        return sent, _wait(client, view)
    except NoDaemon as error:
        if not sent.files:
            raise
        raise NoDaemon(
            f"The daemon stopped after {sent.files} of {len(survey.files)} files.",
            remedy="When it runs again, run the same command again; nothing is imported twice.",
        ) from error


def _send_all(client: FolderClient, medium: Medium, survey: Survey, begun: ImportView, sent: Sent) -> None:
    progress = Progress(len(survey.files), survey.size_bytes)
    for file, row, here in _asked(client, survey, begun.import_id):
        if here:
            sent.here_already += 1
        elif file.size_bytes > begun.max_file_bytes:
            sent.too_large.append(file.name)
        else:
            _send(client, medium, file, row, begun.import_id, sent)
        progress.add(file.size_bytes)
    progress.end()


def _asked(client: FolderClient, survey: Survey, import_id: str) -> Iterator[tuple[MediumFile, ImportFile, bool]]:
    """Yield each file, and whether the daemon has it."""
    from clinic_ai.control.folder_views import MAX_LISTED, ImportFile, encoded

    for start in range(0, len(survey.files), MAX_LISTED):
        files = survey.files[start : start + MAX_LISTED]
        rows = [
            ImportFile(name=encoded(file.raw_name), size_bytes=file.size_bytes, mtime_ns=file.mtime_ns)
            for file in files
        ]
        here = client.here_already(import_id, rows)
        for number, (file, row) in enumerate(zip(files, rows, strict=True)):
            yield file, row, number in here


def _send(client: FolderClient, medium: Medium, file: MediumFile, row: ImportFile, import_id: str, sent: Sent) -> None:
    """Send one file; what cannot be read, or is not taken, is noted and costs no other."""
    from clinic_ai.cli.medium import why
    from clinic_ai.errors import ClinicError

    try:
        sha256 = medium.digest(file)  # first of all, so that what cannot be read is not half sent
        client.send_file(import_id, row, sha256, medium.read(file))
    except OSError as error:
        sent.unreadable.append((file.name, why(error)))
    except ClinicError as error:
        if type(error) is not ClinicError:  # about the daemon, its disk or one's rights, and not about this file
            raise
        sent.unreadable.append((file.name, error.message))
    else:
        sent.files += 1


def _wait(client: FolderClient, view: ImportView) -> ImportView:
    """Wait until all is filed, or nothing has been for a while."""
    moved = time.monotonic()
    while view.pending and time.monotonic() - moved < STILL_S:
        time.sleep(POLL_S)
        now = client.import_state(view.import_id)
        if now.fates != view.fates:
            moved = time.monotonic()
        view = now
    return view


class Progress:
    """One line on a terminal that says how far it is; silent elsewhere."""

    def __init__(self, files: int, size_bytes: int) -> None:
        self._files, self._bytes = files, size_bytes
        self._done, self._done_bytes = 0, 0
        self._began = self._said = time.monotonic()
        self._live = sys.stderr.isatty()

    def add(self, size_bytes: int) -> None:
        """Count a file."""
        self._done += 1
        self._done_bytes += size_bytes
        now = time.monotonic()
        if self._live and now - self._said > 0.2:
            self._said = now
            sys.stderr.write(f"\r{self.line(now - self._began)}\x1b[K")
            sys.stderr.flush()

    def line(self, seconds: float) -> str:
        """Return how far it is, and how long it may take yet."""
        from clinic_ai.cli.output import age, size

        done = f"{self._done} of {self._files} files, {size(self._done_bytes)} of {size(self._bytes)}"
        if not (seconds and self._done_bytes):
            return done
        rate = self._done_bytes / seconds
        return f"{done}, {size(rate)}/s, {age((self._bytes - self._done_bytes) / rate)} left"

    def end(self) -> None:
        """Remove the line."""
        if self._live:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


# ---------------------------------------------------------------- printing


def _print_survey(directory: Path, survey: Survey) -> None:
    from clinic_ai.cli.output import say, size

    say(f"{directory}: {_files(len(survey.files))} to import, {size(survey.size_bytes)}.")
    for what, number in survey.left.items():
        say(f"Left there: {number} {what}.")


def _print_end(sent: Sent, view: ImportView) -> None:
    from clinic_ai.cli.output import say, table

    here = f", {sent.here_already} were here already" if sent.here_already else ""
    say(f"{_files(sent.files)} imported{here} ({view.import_id}, source “{view.source}”).")
    table(("study", "files"), ((study, str(number)) for study, number in view.studies.items()), empty="No study.")
    if duplicates := view.fates.get("DUPLICATE"):
        say(f"{duplicates} of them the studies had already.")
    for remark in view.remarks:
        say(f"{_files(remark.files)} {remark.fate}: {remark.sentence} {remark.remedy}".rstrip())
    for name in sent.too_large[:MAX_NAMED]:
        say(f"Too large: {name}. If it is a scan, raise ingest.max_file_mb in clinic.toml.")
    for name, reason in sent.unreadable[:MAX_NAMED]:
        say(f"Could not be read: {name}: {reason}.")
    if len(sent.unreadable) > MAX_NAMED:
        say(f"And {len(sent.unreadable) - MAX_NAMED} more, which --json names.")
    if sent.unreadable:
        say("Clean the medium or try another drive, and run the same command again: only what is missing is read.")


def _files(number: int) -> str:
    return f"{number} file{'' if number == 1 else 's'}"


def _survey_json(survey: Survey) -> dict[str, object]:
    return {
        "files": len(survey.files),
        "size_bytes": survey.size_bytes,
        "left": survey.left,
        "unreadable": [{"name": name, "why": reason} for name, reason in survey.unreadable],
    }


def _sent_json(sent: Sent) -> dict[str, object]:
    return {
        "sent": sent.files,
        "here_already": sent.here_already,
        "too_large": sent.too_large,
        "unreadable": [{"name": name, "why": reason} for name, reason in sent.unreadable],
    }
