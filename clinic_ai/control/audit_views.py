"""What is said of the audit."""

from __future__ import annotations

from clinic_ai.control.views import View


class AuditFindingRow(View):
    """Something that is not as it was written; ``seq`` is the row of the audit."""

    seq: int | None
    sentence: str
    remedy: str


class AuditView(View):
    """What an examination of the audit found. The newest good head vouches for the rows up to ``signed``."""

    rows: int
    signed: int
    documents: int
    findings: tuple[AuditFindingRow, ...]
    public_key: str
