"""Has headers read in the parser child, and finds the one file that kills it.

A batch that brings the child down is read again one file at a time, each in a child that has just shown that
it works: so one hostile file costs itself and nothing else, and trouble of the machine is not blamed on files.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import structlog

from clinic_ai.confinement import Confinement
from clinic_ai.errors import ChildDied, ChildError, ChildMisbehaved, ChildRefused, ChildTimedOut
from clinic_ai.processes import Child, ChildSpec, Crew, computing_on
from clinic_ai.settings import IngestSettings
from clinic_ai.tasks import ParsedFile, ParseResult, ParseTask, Problem

log = structlog.get_logger()

FILES_PER_CHILD = 20_000
"""After so many files a child is replaced by a fresh one, in case a library leaks."""
START_TIMEOUT_S = 60.0
ONE_FILE_TIMEOUT_S = 10.0
"""Longest time the header of a single suspect may take; a sane one takes a thousandth of it."""
PATIENCE_S = 30.0
"""When the suspects of a batch have taken so long, each further one gets ``SHORT_S``: others wait behind them."""
SHORT_S = 1.0


class HeaderReader:
    """Reads headers in a child, which is started when first needed. One caller at a time."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._child: Child | None = None
        self._read = 0

    def read(self, paths: Sequence[Path], settings: IngestSettings, *, digest: bool = False) -> list[ParsedFile]:
        """Return the header or the problem of each file, in order; with ``digest`` their hashes of pixels and data set.

        Raise ChildError if no child can be brought to work at all, which is not the files' fault.
        """
        if not paths:
            return []
        try:
            return self._call(paths, settings, settings.parser_timeout_s, digest=digest)
        except ChildError as error:
            log.warning("parser.failed", files=len(paths), error=type(error).__name__)
        return self._read_suspects(paths, settings, digest=digest)

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.close()
            self._child = None

    def _read_suspects(self, paths: Sequence[Path], settings: IngestSettings, *, digest: bool) -> list[ParsedFile]:
        patient_until = time.monotonic() + PATIENCE_S
        found = []
        for path in paths:
            limit_s = ONE_FILE_TIMEOUT_S if time.monotonic() < patient_until else SHORT_S
            found.append(self._read_suspect(path, settings, min(limit_s, settings.parser_timeout_s), digest=digest))
        return found

    def _read_suspect(self, path: Path, settings: IngestSettings, limit_s: float, *, digest: bool) -> ParsedFile:
        self._working_child(settings)  # raises if the machine is the trouble
        try:
            return self._call([path], settings, limit_s, digest=digest)[0]
        except ChildError as error:
            if self._crew.closed:
                raise  # we are stopping and killed it ourselves: no fault of the file
            return ParsedFile(path=str(path), problem=_problem(error))

    def _call(
        self, paths: Sequence[Path], settings: IngestSettings, timeout_s: float, *, digest: bool
    ) -> list[ParsedFile]:
        child = self._working_child(settings)
        task = ParseTask(paths=tuple(str(path) for path in paths), max_pixels=settings.max_pixels, digest=digest)
        result = child.call("parse", task, ParseResult, timeout_s=timeout_s)
        self._read += len(paths)
        if [file.path for file in result.files] != list(task.paths):
            child.kill()
            raise ChildMisbehaved("The parser child answered about other files than it was asked about.")
        return list(result.files)

    def _working_child(self, settings: IngestSettings) -> Child:
        """Return a child that has answered a call; start one if there is none."""
        if self._child is not None and self._child.alive and self._read < FILES_PER_CHILD:
            return self._child
        self.close()
        self._read = 0
        child = self._crew.start(
            ChildSpec(
                kind="parser",
                name="parser",
                confinement=Confinement(address_space=settings.parser_memory_mb << 20, file_size=1 << 20),
                environment=computing_on(1),
            )
        )
        child.call("parse", ParseTask(paths=()), ParseResult, timeout_s=START_TIMEOUT_S)
        self._child = child
        return child


def _problem(error: ChildError) -> Problem:
    match error:
        case ChildTimedOut():
            code, what = "parser_timeout", "Reading its header took too long and was stopped"
        case ChildDied():
            code, what = "parser_killed", "Reading its header brought the reading process down"
        case ChildRefused():
            code, what = "parser_failed", "Reading its header failed in a way nobody foresaw"
        case _:
            code, what = "parser_misbehaved", "Reading its header made the reading process misbehave"
    return Problem(
        code=code,
        sentence=f"{what}; the file is damaged or hostile.",
        remedy="Do not open it on another machine; send it again from where it came, or keep it for the vendor.",
    )
