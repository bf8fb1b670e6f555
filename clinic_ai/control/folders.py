"""The routes about folders: how the inboxes stand, media that come in, originals that go out."""

from __future__ import annotations

import base64
import binascii
from itertools import chain
from typing import Annotated

import anyio
from anyio import to_thread
from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect

from clinic_ai.control import desk, export_desk
from clinic_ai.control.asking import Administrator, Anyone, Clinician, Having, Id
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
    RawName,
    RemarkRow,
    decoded,
)
from clinic_ai.control.people import Peer
from clinic_ai.control.services import Services
from clinic_ai.control.slowly import ORDERS, slowly
from clinic_ai.control.views import DoneView, InboxRow
from clinic_ai.domain import Sha256
from clinic_ai.errors import Conflict, InputError, NotAllowed
from clinic_ai.ingest.imports import Arrival, ImportState, Listed
from clinic_ai.store.objects import ObjectStore
from clinic_ai.store.outgoing import outgoing

SILENCE_S = 60.0
"""A sender that sends nothing of a file for this long is cut off."""
PIECE = 1 << 20

router = APIRouter(tags=["folders"])


@router.get("/v1/inboxes")
def get_inboxes(services: Having) -> list[InboxRow]:
    """Return how the inboxes stand: online or why not, and what waits in them."""
    return list(desk.inboxes(services))


@router.post("/v1/inboxes/accept")
def accept_inbox(order: InboxAcceptance, services: Having, person: Administrator) -> DoneView:
    """Take the file system that lies at an inbox now as its own."""
    return DoneView(sentence=services.inboxes.accept(order.name, order.file_system, person.name))


# ---------------------------------------------------------------- imports


@router.post("/v1/imports")
def begin_import(order: ImportOrder, services: Having, person: Anyone) -> ImportView:
    """Begin an import, or go on with it."""
    state = services.imports.begin(order.source, order.listing, order.files, order.size_bytes, person.name)
    return _import_view(state)


@router.get("/v1/imports/{import_id}")
def get_import(import_id: Id, services: Having) -> ImportView:
    """Return what became of the files of an import."""
    return _import_view(services.imports.state(import_id))


@router.post("/v1/imports/{import_id}/here")
def here_already(import_id: Id, order: ImportListing, services: Having, person: Anyone) -> HereView:  # noqa: ARG001 - the role
    """Return which of these files need not be sent."""
    return HereView(numbers=tuple(services.imports.here_already(import_id, list(map(_listed, order.files)))))


@router.put("/v1/imports/{import_id}/files")
async def receive_file(
    import_id: Id,
    request: Request,
    services: Having,
    person: Anyone,  # noqa: ARG001 - the role
    name: RawName,
    mtime_ns: Annotated[int, Query(ge=-(2**63), lt=2**63)],
    content_length: Annotated[int, Header(ge=0)],
    repr_digest: Annotated[str, Header(max_length=200, description="SHA-256 of the file, as RFC 9530 writes it.")],
) -> DoneView:
    """Receive one file; the answer is given when it is synced and has its name."""
    file = Listed(decoded(name), content_length, mtime_ns)
    arrival = await to_thread.run_sync(services.imports.receive, import_id, file, _sha256_of(repr_digest))
    try:
        await _receive(request, arrival)
    except BaseException:  # whatever ended it, also the end of the task: what arrived is no whole file
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(arrival.give_up)
        raise
    await to_thread.run_sync(arrival.keep)
    return DoneView(sentence="Received.")


@router.post("/v1/imports/{import_id}/end")
def end_import(import_id: Id, order: ImportEnd, services: Having, person: Anyone) -> ImportView:
    """Say that all was sent that could be read."""
    services.imports.finish(import_id, order.sent, order.unreadable, person.name)
    return _import_view(services.imports.state(import_id))


async def _receive(request: Request, arrival: Arrival) -> None:
    held: list[bytes] = []
    size = 0
    pieces = request.stream()
    try:
        while True:
            with anyio.fail_after(SILENCE_S):
                piece = await anext(pieces, None)
            if piece is not None:
                held.append(piece)
                size += len(piece)
            if size >= PIECE or piece is None:
                await to_thread.run_sync(arrival.write, b"".join(held))
                held, size = [], 0
            if piece is None:
                return
    except TimeoutError as error:
        raise Conflict("The file came to a halt.", remedy="Run the same command again.") from error
    except ClientDisconnect as error:
        raise Conflict("The sender went away.", remedy="Run the same command again.") from error


def _listed(file: ImportFile) -> Listed:
    return Listed(decoded(file.name), file.size_bytes, file.mtime_ns)


def _sha256_of(header: str) -> str:
    """Return the hash of a ``Repr-Digest`` header. Raise InputError if it has none."""
    for part in header.split(","):
        algorithm, _, value = part.strip().partition("=")
        if algorithm.lower() == "sha-256" and len(value) > 2 and value[0] == value[-1] == ":":
            try:
                digest = base64.b64decode(value[1:-1], validate=True)
            except binascii.Error:
                break
            if len(digest) == 32:
                return digest.hex()
    raise InputError("no_digest", "The header Repr-Digest has no SHA-256.", remedy="Send sha-256=:BASE64:.")


def _import_view(state: ImportState) -> ImportView:
    summary = state.summary
    return ImportView(
        import_id=state.import_id,
        source=state.source,
        max_file_bytes=state.max_file_bytes,
        pending=state.waiting or any(fate.pending for fate in summary.fates),
        fates={fate.value: number for fate, number in summary.fates.items()},
        studies=summary.studies,
        remarks=tuple(RemarkRow.model_validate(remark) for remark in summary.remarks),
    )


# ---------------------------------------------------------------- exports


@router.post("/v1/studies/{study_id}/export")
def export_study(study_id: Id, services: Having, person: Clinician) -> ExportView:
    """Return what there is to fetch of a study, and note who asked: its originals say who the patient is."""
    return export_desk.export(services, study_id, person)


@router.get("/v1/studies/{study_id}/originals/{sha256}", response_class=StreamingResponse)
def get_original(
    study_id: Id,
    sha256: Sha256,
    request: Request,
    services: Having,
    person: Clinician,  # noqa: ARG001 - the role
) -> StreamingResponse:
    """Return the bytes of one original as they may leave, see ``store.outgoing``."""
    _refuse_monitor(request, "Originals")
    size = export_desk.original_size(services, study_id, sha256)
    return _stream(services, sha256, size)


@router.post("/v1/studies/{study_id}/export/deidentified")
@slowly(ORDERS)
def deidentify_study(study_id: Id, services: Having, person: Clinician) -> CopiesView:
    """Make de-identified copies of a study, return what there is to fetch of them, and note who asked."""
    return export_desk.deidentify(services, study_id, person)


@router.get("/v1/studies/{study_id}/copies/{sha256}", response_class=StreamingResponse)
def get_copy(
    study_id: Id,
    sha256: Sha256,
    request: Request,
    services: Having,
    person: Clinician,  # noqa: ARG001 - the role
) -> StreamingResponse:
    """Return the bytes of the de-identified copy of one original, given by the hash of the original."""
    _refuse_monitor(request, "De-identified copies")
    copy, size = export_desk.copy_of(services, study_id, sha256)
    return _stream(services, copy, size)


def _refuse_monitor(request: Request, what: str) -> None:
    peer: Peer = request.state.peer
    if peer.readonly:
        raise NotAllowed(f"{what} leave by the control socket only.", remedy="Ask there.")


def _stream(services: Services, sha256: str, size: int) -> StreamingResponse:
    pieces = outgoing(ObjectStore(services.home.objects), sha256)
    first = next(pieces, b"")  # what is missing or damaged is said while there can still be an answer
    return StreamingResponse(
        chain((first,), pieces), media_type="application/octet-stream", headers={"Content-Length": str(size)}
    )
