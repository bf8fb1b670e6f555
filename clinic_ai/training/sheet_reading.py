"""Has workbooks read by the child that does it; what goes wrong with one of them is a sentence about that one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clinic_ai.confinement import Confinement
from clinic_ai.errors import ChildError, ChildRefused, ChildTimedOut
from clinic_ai.processes import Child, ChildSpec, Crew
from clinic_ai.tasks import SheetTask, Workbook

_SPEC = ChildSpec(
    kind="sheets",
    name="sheets",
    confinement=Confinement(address_space=1536 << 20),
    environment=(("OPENBLAS_NUM_THREADS", "1"), ("OMP_NUM_THREADS", "1")),  # openpyxl imports numpy if it is there
)
_START_TIMEOUT_S = 60.0
_TIMEOUT_S = 60.0
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
            what = "cannot be read for a reason that nobody foresaw"
        except ChildTimedOut:
            what = f"took longer than {_TIMEOUT_S:.0f} s to read"
        except ChildError:
            if self._crew.closed:
                raise
            what = "brought the process that reads it down"
        return f"{what}; it is damaged or hostile. Save its labels in a new workbook."
