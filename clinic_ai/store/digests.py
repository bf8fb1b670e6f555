"""Hashes by which the audit vouches for rows of other tables and for what goes with them."""

from __future__ import annotations

from sqlalchemy import Connection

from clinic_ai.store.raw import fingerprint, raw
from clinic_ai.store.tables import alerts, artefacts, critical_alerts, job_files, review_labels, reviews

ROW = "row_sha256"
"""The detail that names the hash of a row of another table, and of the rows that go with it."""
FILES = "files_sha256"
"""The detail that names the hash of the list of files of an artefact."""
_ARTEFACT = (
    "artefact_id",
    "job_id",
    "study_id",
    "version",
    "audience",
    "verdict",
    "policy_hash",
    "signed_by",
    "created_at",
    "review_id",
    "revision",
)
_REVIEW = (
    "review_id",
    "artefact_id",
    "study_id",
    "version",
    "decision",
    "reviewer",
    "actor",
    "reason",
    "digest",
    "document",
    "job_id",
    "decided_at",
)
_LABEL = ("instance_sha256", "condition", "presence", "corrected")
_FILE = ("name", "sha256", "size_bytes", "media_type")
_ALERT = ("alert_id", "code", "subject", "first_at")
_CRITICAL = ("alert_id", "study_id", "what", "category", "waits_s", "escalate_after", "escalate_to", "raised_at")


def artefact_digest(connection: Connection, artefact_id: str) -> str:
    """Return the SHA-256 of an artefact as it stands in its table, without its state."""
    query = raw(artefacts, *_ARTEFACT).where(artefacts.c.artefact_id == artefact_id)
    return fingerprint(connection.execute(query))


def files_digest(connection: Connection, artefact_id: str) -> str:
    """Return the SHA-256 of the list of files of an artefact."""
    query = raw(job_files, *_FILE).join(artefacts, artefacts.c.job_id == job_files.c.job_id)
    return fingerprint(connection.execute(query.where(artefacts.c.artefact_id == artefact_id).order_by("name")))


def review_digest(connection: Connection, review_id: str) -> str:
    """Return the SHA-256 of a decision and its labels as they stand in their tables, without the consent."""
    row = raw(reviews, *_REVIEW).where(reviews.c.review_id == review_id)
    labels = raw(review_labels, *_LABEL).where(review_labels.c.review_id == review_id)
    found = labels.order_by(review_labels.c.instance_sha256, review_labels.c.condition)
    return fingerprint([*connection.execute(row), *connection.execute(found)])


def alert_digest(connection: Connection, alert_id: int) -> str:
    """Return the SHA-256 of what stays of an alert as it was raised, and of what is critical about it."""
    row = raw(alerts, *_ALERT).where(alerts.c.alert_id == alert_id)
    critical = raw(critical_alerts, *_CRITICAL).where(critical_alerts.c.alert_id == alert_id)
    return fingerprint([*connection.execute(row), *connection.execute(critical)])
