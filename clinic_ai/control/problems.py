"""Errors as people meet them over HTTP: RFC 9457 documents with a sentence and a remedy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

from clinic_ai import errors
from clinic_ai.control.views import ProblemView

MEDIA_TYPE = "application/problem+json"

LONGEST = 20_000
"""Characters of a sentence; one that lists all problems of a policy pack may be long."""

_STATUS: tuple[tuple[type[errors.ClinicError], int], ...] = (
    (errors.NotFound, 404),
    (errors.NotAllowed, 403),
    (errors.TooManyRequests, 429),
    (errors.Conflict, 409),
    (errors.HomeError, 503),
    (errors.ChildRefused, 422),
    (errors.ChildError, 503),
    (errors.ClinicError, 422),
)
_WITH_CODE = (errors.InputError, errors.ChildRefused)
"""Errors that need more than words to be made again; the client raises their base instead."""
_TITLES = {
    400: "Not understood",
    403: "Not allowed",
    404: "Not found",
    405: "Not possible",
    408: "Too slow",
    409: "Conflict",
    411: "Length required",
    413: "Too large",
    422: "Cannot be done",
    429: "Too many requests",
    500: "A mistake of the program",
    503: "Not possible just now",
}


def problem_of(error: errors.ClinicError) -> ProblemView:
    """Return an error as a document."""
    status = next(status for kind, status in _STATUS if isinstance(error, kind))
    return problem(status, error.message, remedy=error.remedy, error=type(error).__name__)


def documented() -> dict[int | str, dict[str, Any]]:
    """Return what the description of the API says of every route's refusals."""
    schema = {"$ref": "#/components/schemas/ProblemView"}
    return {
        status: {"description": _TITLES[status], "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in (400, 403, 404, 405, 408, 409, 411, 413, 422, 429, 500, 503)
    }


def problem(status: int, detail: str, *, remedy: str = "", error: str = "ClinicError") -> ProblemView:
    """Return a document for a status."""
    return ProblemView(
        type=f"urn:clinic-ai:{error}",
        title=_TITLES.get(status, "Refused"),
        status=status,
        detail=_readable(detail),
        remedy=_readable(remedy),
        error=error,
    )


def _readable(text: str) -> str:
    """Return a text that can be sent, for the name of a file may be no text, and read: it may quote what was asked."""
    sent = text.encode(errors="backslashreplace").decode()
    return sent if len(sent) <= LONGEST else f"{sent[:LONGEST]} …"


def response(view: ProblemView, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return a document as an HTTP response."""
    return JSONResponse(view.model_dump(), status_code=view.status, media_type=MEDIA_TYPE, headers=headers)


def error_of(view: ProblemView) -> errors.ClinicError:
    """Return a document as the error it was, for the client to raise."""
    kind = getattr(errors, view.error, None)
    plain = isinstance(kind, type) and issubclass(kind, errors.ClinicError) and kind not in _WITH_CODE
    made: type[errors.ClinicError] = kind if plain and kind is not None else errors.ClinicError
    return made(view.detail, remedy=view.remedy)
