"""The audit: whether it is whole, and copies of it for other systems."""

from __future__ import annotations

import time
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from clinic_ai.control.asking import Clinician, Having, needs
from clinic_ai.control.audit_views import AuditView
from clinic_ai.control.slowly import ORDERS, slowly
from clinic_ai.control.views import Role
from clinic_ai.heads import dicom_audit, exporting
from clinic_ai.heads.keys import is_signed_aside, load_signer, public_key
from clinic_ai.heads.verifying import examine
from clinic_ai.store import audit

router = APIRouter(tags=["audit"])


@router.post("/v1/audit/verify")
@slowly(ORDERS)
def verify(services: Having, person: Clinician) -> AuditView:  # noqa: ARG001 - the role
    """Read the whole audit: chain, signed heads, and the decisions and analyses that it vouches for."""
    found = examine(services.home, services.database, is_signed_aside)
    return AuditView.model_validate(
        {
            "rows": found.rows,
            "signed": found.signed,
            "documents": found.documents,
            "findings": [vars(finding) for finding in found.findings],
            "public_key": public_key(services.home) or "",
        }
    )


@router.post("/v1/audit/export", response_class=StreamingResponse)
def export(
    services: Having,
    person: Clinician,
    request: Request,
    form: Annotated[Literal["jsonl", "dicom"], Query(description="JSON lines, or a DICOM message a line.")] = "jsonl",
    names: Annotated[bool, Query(description="With names and numbers of persons; for administrators.")] = False,
) -> StreamingResponse:
    """Stream the audit; that it was exported, by whom and how, is written into it first."""
    if names:
        needs(Role.ADMINISTRATOR)(request)
    signer = load_signer(services.home)
    with services.database.write() as connection:
        audit.record(
            connection,
            actor=person.name,
            action="audit.exported",
            subject="audit",
            details={"form": form, "names": names},
        )
    if form == "dicom":
        site = services.settings().clinic.name
        return StreamingResponse(
            dicom_audit.messages(services.database, site, names=names), media_type="application/xml"
        )
    lines = exporting.json_lines(services.database, signer, time.time(), names=names)
    return StreamingResponse(lines, media_type="application/jsonl")
