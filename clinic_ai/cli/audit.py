"""``clinic-ai audit``: whether the log of all that was decided is whole, and copies of it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clinic_ai.cli.options import HomeOption, JsonOption, client_of, example, group, home_of

if TYPE_CHECKING:
    from clinic_ai.home import Home

audit = group("audit", "The log of all that was decided: whether it is whole, and copies of it.")


class Form(StrEnum):
    """How an export is written."""

    JSONL = "jsonl"
    DICOM = "dicom"


@audit.command("verify", epilog=example("audit verify --file audit.jsonl"))
def verify(
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="An export of the audit as JSON lines, instead.")
    ] = None,
    key: Annotated[
        str, typer.Option("--key", metavar="HEX", help="Public key that has to have signed; else that of the home.")
    ] = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read the whole audit and say which row is not as it was written. Exit code 1 if one is.

    Without a daemon the database of the home is read directly.
    """
    from clinic_ai.cli.output import Exit, print_json, say

    place = home_of(home)
    found = _of_file(place, file, key) if file is not None else _of_home(place)
    findings = found["findings"]
    if as_json:
        print_json(found)
    else:
        for finding in findings:
            say(f"{finding['sentence']} {finding['remedy']}")
        wrong = f"{len(findings)} of what was examined is not as it was written" if findings else "all is as written"
        say(f"{found['rows']} {'row' if found['rows'] == 1 else 'rows'} of the audit: {wrong}.")
        if file is None:
            say(f"Signed up to row {found['signed']}; {found['documents']} decisions and analyses compared.")
    if findings:
        raise typer.Exit(Exit.FAILED)


@audit.command("export", epilog=example("audit export audit.jsonl"))
def export(
    target: Annotated[Path, typer.Argument(metavar="FILE", help="The new file.")],
    form: Annotated[Form, typer.Option("--form", help="JSON lines, or DICOM audit messages.")] = Form.JSONL,
    names: Annotated[
        bool, typer.Option("--names", help="With the names and numbers of persons; for administrators.")
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a copy of the audit; without --names persons have pseudonyms, and what people typed is left out."""
    import os

    from clinic_ai.cli.output import print_json, say
    from clinic_ai.errors import Conflict

    written = 0
    with client_of(home) as client:
        pieces = client.audit_export(form.value, names=names)
        try:
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Conflict(f"{target} cannot be made: {error.strerror}.", remedy="Name a new file.") from error
        whole = False
        try:
            with os.fdopen(descriptor, "wb") as file:
                for piece in pieces:
                    written += file.write(piece)
            whole = True
        finally:
            if not whole:
                target.unlink(missing_ok=True)
    if as_json:
        print_json({"file": str(target), "size_bytes": written})
    else:
        say(f"The audit is in {target}.")


def _of_home(home: Home) -> dict[str, Any]:
    from clinic_ai.control.client import Client, NoDaemon

    try:
        with Client(home) as client:
            return client.verify_audit().model_dump(mode="json")
    except NoDaemon:
        return _without_daemon(home)


def _without_daemon(home: Home) -> dict[str, Any]:
    from dataclasses import asdict

    from clinic_ai.errors import HomeError
    from clinic_ai.heads.keys import public_key
    from clinic_ai.heads.verifying import examine
    from clinic_ai.home import lock_home
    from clinic_ai.store.database import Database

    if not home.database.is_file():
        raise HomeError(f"There is no database in {home.path}.", remedy="Name the home with --home.")
    with lock_home(home):
        database = Database(home.database)
        try:
            return asdict(examine(home, database)) | {"public_key": public_key(home) or ""}
        finally:
            database.close()


def _of_file(home: Home, file: Path, key: str) -> dict[str, Any]:
    from dataclasses import asdict

    from clinic_ai.errors import ClinicError, NotFound
    from clinic_ai.heads.exporting import OF_HOME, examine_lines
    from clinic_ai.heads.keys import public_key

    key = key.strip()
    if key and (len(key) != 64 or not set(key) <= set("0123456789abcdef")):
        raise ClinicError(
            "What --key gives is no public key: it has 64 digits, 0 to 9 and a to f.",
            remedy="Copy it from state/audit/public.txt of the home that made the export.",
        )
    try:
        with file.open("rb") as lines:
            rows, findings = examine_lines(lines, key or public_key(home), "the one of --key" if key else OF_HOME)
    except OSError as error:
        raise NotFound(f"{file} cannot be read: {error.strerror}.", remedy="Name an export of the audit.") from error
    return {"rows": rows, "findings": [asdict(finding) for finding in findings]}
