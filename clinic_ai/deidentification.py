"""De-identified copies of images, made in a child and remembered: for datasets and for plugins that ask for them.

The daemon decodes nothing of it. It derives the key, adopts what the child wrote without following links, looks
whether the header of the copy still names anybody, and keeps copy, flags and groups by the hash of the original.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import structlog

from clinic_ai.confinement import Confinement
from clinic_ai.errors import ChildDied, ChildError, ChildMisbehaved, ChildRefused, ChildTimedOut
from clinic_ai.processes import Child, ChildSpec, Crew, computing_on, open_produced
from clinic_ai.store import deidentified
from clinic_ai.store.database import Database
from clinic_ai.store.meta import site_key
from clinic_ai.store.objects import ObjectStore
from clinic_ai.tasks import (
    DEIDENTIFICATION_PROFILE,
    CopyKind,
    DeidentifiedFile,
    DeidentifyFile,
    DeidentifyResult,
    DeidentifyTask,
    Problem,
)
from clinic_ai.warm_child import WarmChild
from clinic_ai.wire import DISK_FULL

log = structlog.get_logger()

MAX_FILE_BYTES = 512 << 20
"""Largest original, and largest copy."""
BURNED_IN = "burned_in"
"""Code of the flag of an image whose header says that text identifying the patient is burnt in."""
BURNED_IN_POSSIBLE = "burned_in_possible"
_GROUPS = {
    trait: re.compile(form)
    for trait, form in {
        "sex": r"[MFO]",
        "age": r"0-17|18-39|40-64|65\+",
        "view": r"[A-Z0-9_ ]{1,16}",
        "station": r"station [0-9a-f]{8}",
        "model": r"[ -~]{1,64}",
    }.items()
}
"""What may be said of an image beside its copy."""
_MEMORY = 4 << 30
"""Address space of the child: a large file is there up to four times while its comments are removed."""
_BATCH = 25
_START_TIMEOUT_S = 60.0
_BATCH_TIMEOUT_S = 300.0
_ONE_FILE_TIMEOUT_S = 60.0
_PREFIX = "deidentify-"
_SPEC = ChildSpec(
    kind="deidentifier",
    name="deidentifier",
    confinement=Confinement(address_space=_MEMORY, file_size=MAX_FILE_BYTES),
    environment=computing_on(1),
)


def _prove(child: Child) -> None:
    """Let a fresh child answer once. Raise ChildError."""
    nothing = DeidentifyTask(files=(), output_directory="", key="0" * 64, max_file_bytes=0)
    child.call("deidentify", nothing, DeidentifyResult, timeout_s=_START_TIMEOUT_S)


class Deidentifier:
    """Makes and remembers copies. Safe to call from several threads; one of them works at a time."""

    def __init__(
        self,
        *,
        crew: Crew,
        database: Database,
        objects: ObjectStore,
        directory: Path,
        max_pixels: Callable[[], int],
    ) -> None:
        self.objects = objects
        self._crew = crew
        self._database = database
        self._directory = directory
        self._max_pixels = max_pixels
        self.child = WarmChild(crew, _SPEC, proving=_prove)

    def copies(
        self, originals: Mapping[str, Path], *, keep: bool = True, kinds: Mapping[str, CopyKind] | None = None
    ) -> dict[str, DeidentifiedFile]:
        """Return, for each original by its SHA-256, its copy in the object store, or why there is none.

        ``kinds`` says which are no images. Without ``keep`` new copies are made for a trial and thrown away. Raise
        ChildError if no child can be brought to work, HomeError if the disk is full.
        """
        key, profile = self._profile()
        with self._database.read() as connection:
            known = deidentified.copies_of(connection, profile, originals)
        found = {sha256: copy for sha256, copy in known.items() if copy.sha256 and self.objects.renew(copy.sha256)}
        missing = [sha256 for sha256 in originals if sha256 not in found]
        for start in range(0, len(missing), _BATCH):
            files = [
                DeidentifyFile(path=str(originals[s]), sha256=s, kind=(kinds or {}).get(s, "image"))
                for s in missing[start : start + _BATCH]
            ]
            with self.child.at_work():
                made = self._make(files, key, keep)
            if keep:
                with self._database.write() as connection:
                    deidentified.add_copies(connection, profile, (copy for copy in made if copy.sha256 is not None))
            found |= {copy.original_sha256: copy for copy in made}
        return found

    def known(self, originals: Collection[str]) -> dict[str, str]:
        """Return, of those originals that have a copy, the SHA-256 of it; none is made."""
        _, profile = self._profile()
        with self._database.read() as connection:
            found = deidentified.copies_of(connection, profile, originals)
        return {original: copy.sha256 for original, copy in found.items() if copy.sha256 is not None}

    # ------------------------------------------------------------

    def _profile(self) -> tuple[str, str]:
        """Return the key of this site for this purpose, and the digest of all that a copy depends on."""
        with self._database.write() as connection:
            key = hmac.new(site_key(connection), b"de-identification", hashlib.sha256).digest()
        rules = [
            str(DEIDENTIFICATION_PROFILE),
            *(f"{name} {version(name)}" for name in ("dicom-anonymizer", "pydicom")),
        ]
        return key.hex(), hmac.new(key, "\0".join(["profile", *rules]).encode(), hashlib.sha256).hexdigest()

    def _make(self, files: Sequence[DeidentifyFile], key: str, keep: bool) -> list[DeidentifiedFile]:
        try:
            return self._call(files, key, keep, _BATCH_TIMEOUT_S)
        except ChildError as error:
            if _disk_full(error):
                raise
            log.warning("deidentifier.failed", files=len(files), error=type(error).__name__)
        return [self._make_suspect(file, key, keep) for file in files]

    def _make_suspect(self, file: DeidentifyFile, key: str, keep: bool) -> DeidentifiedFile:
        with self.child.at_work():
            pass  # raises if the machine is the trouble, and not the file
        try:
            return self._call([file], key, keep, _ONE_FILE_TIMEOUT_S)[0]
        except ChildError as error:
            if self._crew.closed or _disk_full(error):
                raise
            return DeidentifiedFile(original_sha256=file.sha256, problem=_problem(error))

    def _call(self, files: Sequence[DeidentifyFile], key: str, keep: bool, timeout_s: float) -> list[DeidentifiedFile]:
        with self.child.at_work() as child, tempfile.TemporaryDirectory(dir=self._directory, prefix=_PREFIX) as folder:
            task = DeidentifyTask(
                files=tuple(files),
                output_directory=folder,
                key=key,
                max_file_bytes=MAX_FILE_BYTES,
                max_pixels=self._max_pixels(),
            )
            result = child.call("deidentify", task, DeidentifyResult, timeout_s=timeout_s)
            try:
                self._adopt(Path(folder), files, result, keep)
            except ChildMisbehaved:
                self.child.distrust()
                raise
        return list(result.files)

    def _adopt(self, folder: Path, files: Sequence[DeidentifyFile], result: DeidentifyResult, keep: bool) -> None:
        if [copy.original_sha256 for copy in result.files] != [file.sha256 for file in files]:
            raise ChildMisbehaved("The deidentifier child answered about other files than it was asked about.")
        for file, copy in zip(files, result.files, strict=True):
            if copy.sha256 is not None:
                _check(copy, image=file.kind == "image")
                if keep:
                    self._adopt_one(folder, copy)

    def _adopt_one(self, folder: Path, copy: DeidentifiedFile) -> None:
        descriptor = open_produced(folder, copy.original_sha256, max_bytes=MAX_FILE_BYTES)
        try:
            sha256, _ = self.objects.write_descriptor(descriptor)
        finally:
            os.close(descriptor)
        if sha256 != copy.sha256:
            raise ChildMisbehaved("The deidentifier child handed over other bytes than it said.")


def _check(copy: DeidentifiedFile, *, image: bool = True) -> None:
    """Raise ChildMisbehaved if the header or a group of a copy names anybody: a second look, at what the child says."""
    header = copy.header
    if not image and (header is not None or copy.groups or copy.flags or copy.problem is not None):
        raise ChildMisbehaved("The deidentifier child said more of a volume than there is to say.")
    if not image:
        return
    if header is None or copy.problem is not None:
        raise ChildMisbehaved("The deidentifier child did not say what it made.")
    identity = header.identity
    unnamed = not (identity.birth_date or identity.accession_number or identity.sex)
    if not unnamed or not all(
        not text or text.startswith("D-") for text in (identity.patient_id, identity.patient_name)
    ):
        raise ChildMisbehaved("A copy that the deidentifier child made still names a patient.")
    if not all(trait in _GROUPS and _GROUPS[trait].fullmatch(group) for trait, group in copy.groups.items()):
        raise ChildMisbehaved("The deidentifier child told more of an image than the groups that it may tell.")


def _disk_full(error: ChildError) -> bool:
    return isinstance(error, ChildRefused) and error.code == DISK_FULL


def _problem(error: ChildError) -> Problem:
    match error:
        case ChildTimedOut():
            what = "took too long and was stopped"
        case ChildDied():
            what = "brought the process that does it down"
        case _:
            what = "failed in a way nobody foresaw"
    return Problem(
        code="deidentifier_failed",
        sentence=f"Removing the identity of the patient {what}; the file is damaged or hostile.",
        remedy="Send it again from where it came, or keep it for the vendor.",
    )
