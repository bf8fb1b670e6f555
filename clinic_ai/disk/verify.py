"""Whether stored objects still are what their names say: read, hashed and compared, a slice of the store at a time.

A damaged object is put aside, so that a job fails rather than looks at wrong pixels, and so that sending the study
again stores it anew.
"""

from __future__ import annotations

import errno
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import structlog

from clinic_ai.errors import NotFound
from clinic_ai.store import alerts, audit, originals, references
from clinic_ai.store.database import Database
from clinic_ai.store.objects import ObjectStore
from clinic_ai.store.references import Kind

log = structlog.get_logger()

CODE = "object_damaged"
"""Code of the alert; its subject is the study."""


@dataclass(frozen=True)
class Fault:
    """An object that is ``missing``, ``damaged`` or ``unreadable``, and the studies that need it."""

    sha256: str
    kind: Kind
    fault: str
    studies: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """Say what is wrong."""
        whose = f" of study {', '.join(self.studies)}" if self.studies else ""
        return f"The stored {_NAMES[self.kind]} {self.sha256[:12]}{whose} {_FAULTS[self.fault]}."

    @property
    def remedy(self) -> str:
        """Say what to do."""
        place = f"state/objects/{self.sha256[:2]}/{self.sha256[2:]}"
        if self.kind is Kind.ORIGINAL:
            return (
                f"Send the study again, which stores it anew; or restore {place} from a backup. Look at the disk too."
            )
        return f"`clinic-ai study retry` makes it anew; or restore {place} from a backup. Look at the disk too."


@dataclass(frozen=True)
class Verified:
    """What was found in a part of the store: so many slices of it, all their objects."""

    slices: int = 0
    objects: int = 0
    size_bytes: int = 0
    faults: tuple[Fault, ...] = ()


class Verifier:
    """Reads objects and raises alerts about those that are not right."""

    def __init__(self, database: Database, objects: ObjectStore) -> None:
        self._database = database
        self._objects = objects

    def verify(self, prefixes: Sequence[str], *, for_s: float = math.inf) -> Verified:
        """Verify every needed object whose hash begins with one of these, slice after slice.

        No slice is begun after ``for_s`` seconds, so that whoever asked hears how far it came.
        """
        slices, objects, size = 0, 0, 0
        faults: list[Fault] = []
        until = time.monotonic() + for_s
        for prefix in prefixes:
            for bytes_read, fault in self.one_by_one(prefix):
                objects, size = objects + 1, size + bytes_read
                if fault is not None:
                    faults.append(fault)
            slices += 1
            if time.monotonic() >= until:
                break
        self.withdraw_repaired()
        return Verified(slices, objects, size, tuple(faults))

    def one_by_one(self, prefix: str) -> Iterator[tuple[int, Fault | None]]:
        """Yield, for each needed object of a slice, the bytes that were read and what is wrong with it."""
        with self._database.read() as connection:
            needed = references.needed_in_slice(connection, prefix)
        for sha256, kind in needed.items():
            try:
                size = self._objects.path(sha256).stat().st_size
                whole = self._objects.verify(sha256)
            except (NotFound, FileNotFoundError):
                yield 0, self._missing(sha256)
                continue
            except OSError as error:
                if error.errno not in _READ_ERRORS:
                    raise
                yield 0, self._put_aside(sha256, kind, "unreadable")
                continue
            yield size, None if whole else self._put_aside(sha256, kind, "damaged")

    def withdraw_repaired(self) -> None:
        """Close the alerts about studies that have all their objects again."""
        with self._database.read() as connection:
            subjects = [alert.subject for alert in alerts.open_alerts(connection) if alert.code == CODE]
            whole = [
                subject
                for subject in subjects
                if all(map(self._objects.has, references.objects_of(connection, subject)))
            ]
        if whole:
            with self._database.write() as connection:
                for subject in whole:
                    alerts.withdraw(connection, CODE, subject)

    def _missing(self, sha256: str) -> Fault | None:
        """Return the fault, None if the object is not needed any more or was removed by retention."""
        with self._database.read() as connection:
            kind = references.needed(connection, [sha256]).get(sha256)
            if kind is None or kind is Kind.COPY:
                return None  # a copy is made again when it is asked for
            owners = references.studies_needing(connection, sha256)
            if owners and all(originals.removed_at(connection, study_id) is not None for study_id in owners):
                return None
        return self._tell(sha256, kind, "missing")

    def _put_aside(self, sha256: str, kind: Kind, what: str) -> Fault:
        fault = self._tell(sha256, kind, what)  # first: a disk that cannot read may not rename either
        self._objects.set_aside(sha256)
        return fault

    def _tell(self, sha256: str, kind: Kind, what: str) -> Fault:
        with self._database.write() as connection:
            fault = Fault(sha256, kind, what, tuple(references.studies_needing(connection, sha256)))
            for subject in fault.studies or (sha256[:12],):
                alerts.raise_alert(connection, CODE, subject, fault.sentence, fault.remedy)
                details = {"object": sha256, "fault": what}
                audit.record(connection, actor="clinic-ai", action="object.damaged", subject=subject, details=details)
        log.error("object.damaged", object=sha256, fault=what, studies=fault.studies)
        return fault


_READ_ERRORS = frozenset({errno.EIO, errno.EBADMSG, errno.EUCLEAN})
"""What the kernel says of a sector that cannot be read, and a file system of one whose check sum is wrong."""
_FAULTS = {
    "missing": "is missing",
    "damaged": "is damaged: its bytes do not have their hash any more",
    "unreadable": "cannot be read: the disk answers with an error",
}
_NAMES = {Kind.ORIGINAL: "original", Kind.RESULT: "result", Kind.COPY: "de-identified copy"}
