"""Has workbooks read, and empty ones written, by the child that does it.

What goes wrong with one of them is a sentence about that one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from clinic_ai.confinement import Confinement
from clinic_ai.errors import ChildError, ChildRefused, ChildTimedOut, DatasetError
from clinic_ai.processes import Child, ChildSpec, Crew, computing_on, open_produced
from clinic_ai.tasks import SheetForm, SheetMade, SheetTask, Workbook

_SPEC = ChildSpec(
    kind="sheets",
    name="sheets",
    confinement=Confinement(address_space=1536 << 20, file_size=32 << 20),
    environment=computing_on(1),  # openpyxl imports numpy if it is there
)
_START_TIMEOUT_S = 60.0
_TIMEOUT_S = 60.0
_MAX_FORM_BYTES = 32 << 20
_CODES_OF_ITS_OWN = frozenset({"child_raised", "no_such_method", "bad_params", "answer_too_large"})


class SheetReader:
    """Reads workbooks. Safe to call from several threads: each call has a child of its own."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew

    def __call__(self, paths: Sequence[Path]) -> list[Workbook | str]:
        """Return what each workbook says, or the end of a sentence about why it cannot be read.

        Raise ChildError if no child can be brought to work.
        """
        child: Child | None = None
        answers: list[Workbook | str] = []
        try:
            for path in paths:
                if child is None or not child.alive:
                    child = self._start()
                answers.append(self._read(child, path))
        finally:
            if child is not None:
                child.close()
        return answers

    def _start(self) -> Child:
        child = self._crew.start(_SPEC)
        child.call("read", SheetTask(), Workbook, timeout_s=_START_TIMEOUT_S)  # the machine's fault, if anybody's
        return child

    def _read(self, child: Child, path: Path) -> Workbook | str:
        try:
            return child.call("read", SheetTask(path=str(path.absolute())), Workbook, timeout_s=_TIMEOUT_S)
        except ChildRefused as error:
            if error.code not in _CODES_OF_ITS_OWN:
                return f"{error.message}. {error.remedy}".strip()
            if error.code == "answer_too_large":
                return "holds more text than can be read at once. Split it into several workbooks."
            what = "cannot be read for a reason that nobody foresaw"
        except ChildTimedOut:
            what = f"took longer than {_TIMEOUT_S:.0f} s to read"
        except ChildError:
            if self._crew.closed:
                raise
            what = "brought the process that reads it down"
        return f"{what}; it is damaged or hostile. Save its labels in a new workbook."


def write_form(crew: Crew, title: str, rows: Sequence[Sequence[str]], target: Path) -> None:
    """Write a workbook for people to fill in; ``rows`` begin with the header.

    Raise DatasetError if there is such a file or it cannot be written there, ChildError if the child fails.
    """
    plain = "".join(c if c.isalnum() else " " for c in title)[:31].strip()  # Excel takes no punctuation in it
    with tempfile.TemporaryDirectory(prefix="clinic-ai-") as folder:
        form = SheetForm(output_directory=folder, title=plain, rows=tuple(map(tuple, rows)))
        child = crew.start(_SPEC)
        try:
            made = child.call("write", form, SheetMade, timeout_s=_TIMEOUT_S)
        finally:
            child.close()
        descriptor = open_produced(Path(folder), made.name, max_bytes=_MAX_FORM_BYTES)
        try:
            with os.fdopen(descriptor, "rb") as source, target.open("xb") as file:
                shutil.copyfileobj(source, file)
        except FileExistsError as error:
            remedy = "Choose another name; nothing is overwritten."
            raise DatasetError(f"{target} is there already.", remedy=remedy) from error
        except OSError as error:
            what = f"{target} cannot be written: {error.strerror}."
            raise DatasetError(what, remedy="Choose another place.") from error
