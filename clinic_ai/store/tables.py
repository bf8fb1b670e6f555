"""The tables of the database, and nothing else. Times are UTC seconds, sizes bytes, documents JSON text."""

from __future__ import annotations

from sqlalchemy import (
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from clinic_ai.store.learning_tables import (
    activations,
    approvals,
    datasets,
    expenses,
    gate_reports,
    models,
    patient_splits,
    runs,
    shadows,
)
from clinic_ai.store.metadata import metadata

__all__ = [
    "activations",
    "alerts",
    "analyses",
    "approvals",
    "artefacts",
    "audit",
    "category_choices",
    "critical_alerts",
    "critical_findings",
    "datasets",
    "deidentified",
    "deliveries",
    "expenses",
    "file_counts",
    "files",
    "gate_reports",
    "inbox_mounts",
    "instances",
    "job_files",
    "jobs",
    "meta",
    "metadata",
    "models",
    "notices",
    "patient_splits",
    "questions",
    "review_labels",
    "reviews",
    "runs",
    "shadows",
    "source_pace",
    "studies",
]

files = Table(
    "files",
    metadata,
    # The ledger: one row per file that was ever seen in an inbox, whatever became of it.
    Column("file_id", Integer, primary_key=True),
    Column("source", Text, nullable=False),
    Column("name", Text, nullable=False),  # path below the inbox, for people: odd bytes escaped
    Column("raw_name", LargeBinary, nullable=False),  # the same as the file system has it
    Column("size_bytes", Integer, nullable=False),
    Column("mtime_ns", Integer, nullable=False),
    Column("sha256", Text),
    Column("fate", Text, nullable=False),
    Column("reason_code", Text, nullable=False, server_default=""),
    Column("reason", Text, nullable=False, server_default=""),
    Column("remedy", Text, nullable=False, server_default=""),
    Column("study_id", Text),
    Column("seen_at", Float, nullable=False),
    Column("decided_at", Float),
    Column("decision", Text, nullable=False, server_default=""),  # of a person about a quarantined file
    Column("decided_by", Text, nullable=False, server_default=""),
    Index(None, "fate"),
    Index(None, "study_id"),
    Index("ignored_files", "raw_name", "source", sqlite_where=text("fate = 'IGNORED'")),  # each is noted once
    Index(  # what waits for people is counted, without a look at the rows, with each batch of which some is refused
        "quarantined_files",
        "fate",  # always the same, but else SQLite takes the index of all fates
        "source",
        "study_id",
        "reason_code",
        "size_bytes",
        sqlite_where=text("fate = 'QUARANTINED'"),
    ),
)

file_counts = Table(
    "file_counts",
    metadata,
    # How many files have each fate, kept by triggers on ``files``: counting a million rows takes too long for a status.
    Column("fate", Text, primary_key=True),
    Column("number", Integer, nullable=False),
)

studies = Table(
    "studies",
    metadata,
    # One row per version of a study; the identity columns stay in this file and out of every log.
    Column("study_id", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("state", Text, nullable=False),
    Column("study_instance_uid", Text, nullable=False),
    Column("grouping_key", Text, nullable=False),  # what later arrivals are matched by
    Column("pseudonym", Text, nullable=False),
    Column("patient_key", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("facts", Text, nullable=False),
    Column("identity", Text, nullable=False),
    Column("priority", Integer, nullable=False, server_default="0"),
    Column("opened_at", Float, nullable=False),
    Column("last_instance_at", Float, nullable=False),
    Column("closed_at", Float),
    Column("closed_reason", Text, nullable=False, server_default=""),
    Column("wait", Text),
    Column("close_code", Text, nullable=False, server_default=""),
    Column("urgency", Text, nullable=False, server_default="{}"),  # what the priority is made of
    Column("originals_removed_at", Float),  # when retention removed the bytes; the headers stay
    # What the queue is sorted and searched by, out of the documents above.
    Column("modality", Text, nullable=False, server_default=""),
    Column("body_parts", Text, nullable=False, server_default=""),
    Column("wait_code", Text, nullable=False, server_default=""),
    Column("wait_sentence", Text, nullable=False, server_default=""),
    Index("studies_by_age", "state", "opened_at", "study_id", "version"),
    Index(  # all that sorting and searching look at, so that neither reads the rows
        "studies_in_queue",
        "state",
        "opened_at",
        "study_id",
        "version",
        "priority",
        "pseudonym",
        "source",
        "modality",
        "body_parts",
        "wait_code",
        "wait_sentence",
    ),
    Index(None, "grouping_key", "version"),
    Index("one_open_version_per_group", "grouping_key", unique=True, sqlite_where=text("state = 'RECEIVING'")),
)

instances = Table(
    "instances",
    metadata,
    Column("instance_id", Integer, primary_key=True),
    Column("study_id", Text, nullable=False),
    Column("first_version", Integer, nullable=False),
    Column("last_version", Integer),  # the last version it belongs to; null: also to those to come
    Column("sop_instance_uid", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("size_bytes", Integer, nullable=False),
    Column("header", Text, nullable=False),
    Column("file_id", Integer, ForeignKey("files.file_id"), nullable=False),
    UniqueConstraint("study_id", "sha256"),
    Index(None, "sop_instance_uid"),
    Index(None, "sha256"),
)

source_pace = Table(
    "source_pace",
    metadata,
    # How far apart the instances of one study arrive from a source: what its quiet period is learned from.
    Column("source", Text, primary_key=True),
    Column("document", Text, nullable=False),
    Column("updated_at", Float, nullable=False),
)

inbox_mounts = Table(
    "inbox_mounts",
    metadata,
    # The file system an inbox was on when it was last seen, so that an unmounted share is not an empty inbox.
    Column("source", Text, primary_key=True),
    Column("path", Text, nullable=False),
    Column("device", Text, nullable=False),
    Column("file_system", Text, nullable=False),
    Column("seen_at", Float, nullable=False),
)

deidentified = Table(
    "deidentified",
    metadata,
    # De-identified copies: an original by its hash, under a profile by the hash of its rules and key.
    Column("original_sha256", Text, primary_key=True),
    Column("profile", Text, primary_key=True),
    Column("sha256", Text, nullable=False),
    Column("document", Text, nullable=False),  # what was done and what was flagged, in words
    Column("created_at", Float, nullable=False),
    Index(None, "sha256"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("job_id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("study_id", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("plugin", Text, nullable=False, server_default=""),
    Column("rule", Text, nullable=False, server_default=""),
    Column("state", Text, nullable=False),
    Column("priority", Integer, nullable=False, server_default="0"),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("interruptions", Integer, nullable=False, server_default="0"),
    Column("not_before", Float, nullable=False, server_default="0"),
    Column("lease_owner", Text),
    Column("models", Text, nullable=False, server_default="[]"),
    Column("policy_hash", Text, nullable=False, server_default=""),
    Column("error", Text, nullable=False, server_default=""),
    Column("wait", Text),
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("finished_at", Float),
    ForeignKeyConstraint(["study_id", "version"], ["studies.study_id", "studies.version"]),
    Index(None, "state", "not_before"),
    Index(None, "study_id", "version"),
)

analyses = Table(
    "analyses",
    metadata,
    Column("job_id", Text, ForeignKey("jobs.job_id"), primary_key=True),
    Column("study_id", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("document", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    Index(None, "study_id", "version"),
)

job_files = Table(
    "job_files",
    metadata,
    Column("job_id", Text, ForeignKey("jobs.job_id"), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("sha256", Text, nullable=False),
    Column("size_bytes", Integer, nullable=False),
    Column("media_type", Text, nullable=False),
    Index(None, "sha256"),
)

artefacts = Table(
    "artefacts",
    metadata,
    # What the guard decided upon, per audience; its files stand in job_files of the report job.
    Column("artefact_id", Text, primary_key=True),
    Column("job_id", Text, ForeignKey("jobs.job_id"), nullable=False),
    Column("study_id", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("audience", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("policy_hash", Text, nullable=False),
    Column("signed_by", Text, nullable=False, server_default=""),
    Column("created_at", Float, nullable=False),
    Column("review_id", Text, nullable=False, server_default=""),  # the decision it came of; triggers want it of FINAL
    Column("revision", Integer, nullable=False, server_default="0"),  # 0: the software's; then the signed ones
    Index(None, "study_id", "version"),
    Index(None, "state"),
    Index("one_artefact_per_review", "review_id", unique=True, sqlite_where=text("review_id != ''")),
)

reviews = Table(
    "reviews",
    metadata,
    # What a named person decided about an artefact; triggers keep all but consent and job as it was written.
    Column("review_id", Text, primary_key=True),
    Column("artefact_id", Text, ForeignKey("artefacts.artefact_id"), nullable=False),
    Column("study_id", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("decision", Text, nullable=False),  # accept | amend | reject
    Column("reviewer", Text, nullable=False),
    Column("actor", Text, nullable=False),  # the Unix user, by the socket's peer credentials
    Column("reason", Text, nullable=False, server_default=""),
    Column("digest", Text, nullable=False),  # of what the reviewer was shown
    Column("document", Text, nullable=False),  # the words before and after, and their difference
    Column("consent", Integer, nullable=False),  # whether it may be learned from
    Column("job_id", Text, ForeignKey("jobs.job_id")),  # which renders and releases what was signed
    Column("decided_at", Float, nullable=False),
    Index(None, "artefact_id"),
    Index(None, "job_id"),
    Index(None, "study_id", "version"),
)

review_labels = Table(
    "review_labels",
    metadata,
    # What a person says an image shows; an empty hash: the study as a whole.
    Column("review_id", Text, ForeignKey("reviews.review_id"), primary_key=True),
    Column("instance_sha256", Text, primary_key=True),
    Column("condition", Text, primary_key=True),
    Column("presence", Text, nullable=False),
    Column("corrected", Integer, nullable=False),  # 0: it is what the software said
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("delivery_id", Text, primary_key=True),
    Column("artefact_id", Text, ForeignKey("artefacts.artefact_id"), nullable=False),
    Column("target", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("not_before", Float, nullable=False, server_default="0"),
    Column("place", Text, nullable=False, server_default=""),
    Column("error", Text, nullable=False, server_default=""),
    Column("created_at", Float, nullable=False),
    Column("done_at", Float),
    UniqueConstraint("artefact_id", "target"),
    Index(None, "state"),
)

alerts = Table(
    "alerts",
    metadata,
    Column("alert_id", Integer, primary_key=True),
    Column("code", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("sentence", Text, nullable=False),
    Column("remedy", Text, nullable=False),
    Column("count", Integer, nullable=False, server_default="1"),
    Column("first_at", Float, nullable=False),
    Column("last_at", Float, nullable=False),
    Column("acknowledged_by", Text),
    Column("acknowledged_at", Float),
    Index("one_open_alert_per_subject", "code", "subject", unique=True, sqlite_where=text("acknowledged_at IS NULL")),
)

critical_alerts = Table(
    "critical_alerts",
    metadata,
    # What goes with an alert about a critical finding: how it repeats is fixed when it is raised.
    Column("alert_id", Integer, ForeignKey("alerts.alert_id"), primary_key=True),
    Column("study_id", Text, nullable=False),
    Column("what", Text, nullable=False),  # condition:KEY or term:WORDS of clinic.toml; for clinicians only
    Column("category", Integer, nullable=False),
    Column("waits_s", Text, nullable=False),
    Column("escalate_after", Integer, nullable=False),
    Column("escalate_to", Text, nullable=False),
    Column("raised_at", Float, nullable=False),
    Column("notices", Integer, nullable=False, server_default="0"),
    Column("next_at", Float, nullable=False),
    Column("told_to", Text, nullable=False, server_default=""),
    Index(None, "study_id", "what"),
)

critical_findings = Table(
    "critical_findings",
    metadata,
    # Which version of a study showed it, and which alert tells of it: once told, a repeated job tells nothing new.
    Column("study_id", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("what", Text, primary_key=True),
    Column("alert_id", Integer, ForeignKey("alerts.alert_id"), nullable=False),
    Column("job_id", Text, ForeignKey("jobs.job_id"), nullable=False),
    Column("found_at", Float, nullable=False),
    Index(None, "alert_id"),
)

notices = Table(
    "notices",
    metadata,
    # What is to leave by webhook and e-mail about a critical alert, until it has left.
    Column("notice_id", Integer, primary_key=True),
    Column("alert_id", Integer, ForeignKey("alerts.alert_id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("channel", Text, nullable=False),  # webhook | email
    Column("state", Text, nullable=False),  # PENDING | SENT | DROPPED
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("not_before", Float, nullable=False, server_default="0"),
    Column("error", Text, nullable=False, server_default=""),
    Column("created_at", Float, nullable=False),
    Column("done_at", Float),
    UniqueConstraint("alert_id", "number", "channel"),
    Index("pending_notices", "channel", "not_before", sqlite_where=text("state = 'PENDING'")),
)

questions = Table(
    "questions",
    metadata,
    # What people asked about a study, and what the guard let out; rows are never changed.
    Column("question_id", Text, primary_key=True),
    Column("study_id", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("audience", Text, nullable=False),
    Column("asked_by", Text, nullable=False),
    Column("asked_at", Float, nullable=False),
    Column("question", Text, nullable=False),
    Column("outcome", Text, nullable=False),  # answered | template | held | refused
    Column("document", Text, nullable=False),  # the released answer, or why there is none; model, category, frame
    Column("policy_hash", Text, nullable=False),
    Index(None, "study_id", "asked_at"),
)

category_choices = Table(
    "category_choices",
    metadata,
    # Which category a person says the images of a study are of; the newest row counts.
    Column("choice_id", Integer, primary_key=True),
    Column("study_id", Text, nullable=False),
    Column("plugin", Text, nullable=False),
    Column("category", Text, nullable=False),  # empty: the choice is taken back
    Column("chosen_by", Text, nullable=False),
    Column("chosen_at", Float, nullable=False),
    Index(None, "study_id", "plugin"),
)

audit = Table(
    "audit",
    metadata,
    # Hash-chained: ``hash`` covers the row and the hash before it.
    Column("seq", Integer, primary_key=True),
    Column("at", Float, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("details", Text, nullable=False),
    Column("previous_hash", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Index(None, "subject"),
    sqlite_autoincrement=True,  # a number is never given twice: rows that were cut off leave a gap
)

meta = Table(
    "meta",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)
