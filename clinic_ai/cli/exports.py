"""``clinic-ai study export``: originals or de-identified copies out, with the rights of who types it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clinic_ai.cli.options import HomeOption, JsonOption, folder_client_of

if TYPE_CHECKING:
    from clinic_ai.control.folder_client import FolderClient
    from clinic_ai.control.folder_views import CopiesView, NoteRow

MAX_NAMED = 5
"""Files named for one reason; ``--json`` names all."""


def export_study(
    study_id: Annotated[str, typer.Argument(metavar="STUDY", help="Id of the study, as `study list` shows it.")],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write to; it is made if need be.")],
    deidentified: Annotated[
        bool, typer.Option("--deidentified", help="Copies without the patient, in a folder of their own in DIR.")
    ] = False,
    into: Annotated[bool, typer.Option("--into", help="Also into a folder that is not empty.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the originals of a study, as they arrived, into a folder. For clinicians: they say who the patient is.

    Only the preamble of DICOM files is zeroed. The audit says who exported what. With --deidentified, copies by the
    basic profile of DICOM PS3.15 instead; exit code 1 if a file got none, which is then not written in any form.
    """
    from clinic_ai.cli.output import Exit, print_json, say, size
    from clinic_ai.errors import Conflict

    if directory.is_dir() and any(directory.iterdir()) and not into:
        raise Conflict(f"{directory} is not empty.", remedy="Name a new folder, or say --into.")
    with folder_client_of(home) as client:
        if deidentified:
            copies = _write_copies(client, study_id, directory)
            _print_copies(copies, directory, as_json=as_json)
            if copies.left_out:
                raise typer.Exit(Exit.FAILED)
            return
        view = client.export_study(study_id)
        for row in view.originals:
            _write(directory / row.place, client.original(study_id, row.sha256), row.size_bytes)
    total = sum(row.size_bytes for row in view.originals)
    if as_json:
        print_json({"study_id": study_id, "version": view.version, "files": [row.place for row in view.originals]})
    else:
        say(f"{len(view.originals)} files, {size(total)}, of {study_id} version {view.version} are in {directory}.")


def _write_copies(client: FolderClient, study_id: str, directory: Path) -> CopiesView:
    """Write the de-identified copies of a study into a folder of their own, all of them or none."""
    view = client.deidentify_study(study_id)
    with _whole_folder(directory / view.folder) as folder:
        for row in view.copies:
            _write(folder / row.place, client.copy(study_id, row.sha256), row.size_bytes)
    return view


# ---------------------------------------------------------------- writing


@contextmanager
def _whole_folder(place: Path) -> Iterator[Path]:
    """Yield a folder to fill, which gets its name when that is done and is removed if it fails.

    Raise Conflict if there is something of that name, HomeError if it cannot be made.
    """
    from clinic_ai.errors import Conflict, HomeError

    if os.path.lexists(place):
        raise Conflict(f"{place} is there already.", remedy="It holds these copies; remove it, or name another folder.")
    temporary = place.with_name(f".{place.name}.part")
    try:
        shutil.rmtree(temporary, ignore_errors=True)  # of an export that was killed
        temporary.mkdir(parents=True)
    except OSError as error:
        raise HomeError(f"{temporary} cannot be made: {error.strerror}.", remedy="Name another folder.") from error
    try:
        yield temporary
        try:
            _sync(temporary)
            temporary.rename(place)
            _sync(place.parent)
        except OSError as error:
            raise HomeError(f"{place} cannot be written: {error.strerror}.", remedy="Name another folder.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(place: Path, pieces: Iterator[bytes], size: int) -> None:
    """Write a file as a whole or not at all. Raise HomeError if it cannot be written or did not come whole."""
    from clinic_ai.errors import HomeError

    temporary = place.with_name(f".{place.name}.part")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():
            raise FileExistsError(None, "there is a file of this name")
        with temporary.open("wb") as out:
            for piece in pieces:
                out.write(piece)
            written = out.tell()
            out.flush()
            os.fsync(out.fileno())
        if written == size:
            temporary.rename(place)
            _sync(place.parent)
    except OSError as error:
        raise HomeError(f"{place} cannot be written: {error.strerror}.", remedy="Name another folder.") from error
    finally:
        temporary.unlink(missing_ok=True)
    if written != size:
        raise HomeError(f"{place} did not come whole.", remedy="Export the study again.")


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# ---------------------------------------------------------------- printing


def _print_copies(view: CopiesView, directory: Path, *, as_json: bool) -> None:
    from clinic_ai.cli.output import print_json, say, size

    if as_json:
        files = [row.place for row in view.copies]
        print_json(view.model_dump(mode="json", exclude={"copies"}) | {"files": files})
        return
    total = sum(row.size_bytes for row in view.copies)
    place = directory / view.folder
    say(f"{_files(len(view.copies))} de-identified, {size(total)}, of {view.study_id} version {view.version}: {place}.")
    _print_notes("To look at", view.look_at)
    _print_notes("Left out, not written in any form", view.left_out)


def _print_notes(what: str, notes: Iterable[NoteRow]) -> None:
    from clinic_ai.cli.output import say

    for note in notes:
        named = ", ".join(note.places[:MAX_NAMED])
        more = f" and {len(note.places) - MAX_NAMED} more" if len(note.places) > MAX_NAMED else ""
        say(f"{what}: {_files(len(note.places))} ({named}{more}). {note.sentence} {note.remedy}".rstrip())


def _files(number: int) -> str:
    return f"{number} file{'' if number == 1 else 's'}"
