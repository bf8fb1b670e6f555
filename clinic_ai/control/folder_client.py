"""The client of what the daemon does with folders: inboxes, imports of media, originals that go out."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence

import httpx

from clinic_ai.control.client import LONG_S, Client, refused, segment
from clinic_ai.control.folder_views import (
    CopiesView,
    ExportView,
    HereView,
    ImportEnd,
    ImportFile,
    ImportListing,
    ImportOrder,
    ImportView,
    InboxAcceptance,
)
from clinic_ai.control.views import DoneView, InboxRow

SYNC_S = 120.0
"""For the answer about a file: it is given when the disk has it."""


class FolderClient(Client):
    """Talks to the daemon of one home; raises what ``Client`` raises."""

    def inboxes(self) -> tuple[InboxRow, ...]:
        """Return how the inboxes stand."""
        return tuple(self._get("/v1/inboxes", list[InboxRow]))

    def accept_inbox(self, name: str, file_system: str) -> DoneView:
        """Take the file system that lies at an inbox now as its own. Raise NotFound or Conflict."""
        return self._post("/v1/inboxes/accept", InboxAcceptance(name=name, file_system=file_system), DoneView)

    def begin_import(self, order: ImportOrder) -> ImportView:
        """Begin an import, or go on with it. Raise HomeError if there is no room."""
        return self._post("/v1/imports", order, ImportView, timeout_s=LONG_S)

    def here_already(self, import_id: str, files: Sequence[ImportFile]) -> set[int]:
        """Return which of these files need not be sent, by their place in the list."""
        path = f"/v1/imports/{segment(import_id, 'import')}/here"
        return set(self._post(path, ImportListing(files=tuple(files)), HereView, timeout_s=LONG_S).numbers)

    def send_file(self, import_id: str, file: ImportFile, sha256: str, pieces: Iterable[bytes]) -> None:
        """Send one file. Raise HomeError if there is no room, InputError's base if it is not taken."""
        digest = base64.b64encode(bytes.fromhex(sha256)).decode()
        headers = {"Content-Length": str(file.size_bytes), "Repr-Digest": f"sha-256=:{digest}:"}
        self._request(
            "PUT",
            f"/v1/imports/{segment(import_id, 'import')}/files",
            params={"name": file.name, "mtime_ns": file.mtime_ns},
            headers=headers,
            content=pieces,
            timeout=SYNC_S,
        )

    def import_state(self, import_id: str) -> ImportView:
        """Return what became of the files of an import."""
        return self._get(f"/v1/imports/{segment(import_id, 'import')}", ImportView)

    def end_import(self, import_id: str, sent: int, unreadable: int) -> ImportView:
        """Say that all was sent that could be read."""
        path = f"/v1/imports/{segment(import_id, 'import')}/end"
        return self._post(path, ImportEnd(sent=sent, unreadable=unreadable), ImportView)

    def export_study(self, study_id: str) -> ExportView:
        """Return the originals of a study; this is written into the audit. Raise NotFound or Conflict."""
        return self._post(f"/v1/studies/{segment(study_id, 'study')}/export", None, ExportView)

    def original(self, study_id: str, sha256: str) -> Iterator[bytes]:
        """Yield the bytes of an original as they may leave. Raise NotFound or HomeError."""
        return self._bytes_of(f"/v1/studies/{segment(study_id, 'study')}/originals/{sha256}")

    def deidentify_study(self, study_id: str) -> CopiesView:
        """Have de-identified copies of a study made; this is written into the audit.

        Raise NotFound, Conflict if no file of it has one, ChildError or HomeError if none can be made just now.
        """
        path = f"/v1/studies/{segment(study_id, 'study')}/export/deidentified"
        return self._post(path, None, CopiesView, timeout_s=LONG_S)

    def copy(self, study_id: str, sha256: str) -> Iterator[bytes]:
        """Yield the bytes of the de-identified copy of an original. Raise NotFound, Conflict or HomeError."""
        return self._bytes_of(f"/v1/studies/{segment(study_id, 'study')}/copies/{sha256}")

    def _bytes_of(self, path: str) -> Iterator[bytes]:
        with self._talking(), self._http.stream("GET", path, timeout=SYNC_S) as answer:
            if answer.status_code != httpx.codes.OK:
                answer.read()
                raise refused(answer)
            yield from answer.iter_bytes()
