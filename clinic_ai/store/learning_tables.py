"""The tables about learning: models, datasets, runs, what they cost, and how candidates become active."""

from __future__ import annotations

from sqlalchemy import (
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
)

from clinic_ai.store.metadata import metadata

models = Table(
    "models",
    metadata,
    Column("plugin", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("version", Text, primary_key=True),
    Column("slot", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("directory", Text, nullable=False),  # below the home's models/
    Column("manifest", Text, nullable=False),
    Column("imported_at", Float, nullable=False),
    Column("imported_by", Text, nullable=False),
)

activations = Table(
    "activations",
    metadata,
    # Every promotion and rollback; the newest row of a (plugin, slot) says what is active.
    Column("activation_id", Integer, primary_key=True),
    Column("plugin", Text, nullable=False),
    Column("slot", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("at", Float, nullable=False),
    Column("by", Text, nullable=False),
    Column("kind", Text, nullable=False),  # promote | rollback
    Column("undoes", Integer),  # for a rollback: the activation it takes back
    Column("approval_id", Text),  # the approval it rests on; none for imported models and rollbacks
    ForeignKeyConstraint(["plugin", "name", "version"], ["models.plugin", "models.name", "models.version"]),
    Index(None, "plugin", "slot"),
)

datasets = Table(
    "datasets",
    metadata,
    Column("dataset_id", Text, primary_key=True),
    Column("plugin", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("document", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("lineage", Text, nullable=False, server_default="{}"),  # folders, reviews and datasets it was made of
    UniqueConstraint("plugin", "digest"),
)

patient_splits = Table(
    "patient_splits",
    metadata,
    # A patient is in one split for life, whatever dataset the patient turns up in later.
    Column("plugin", Text, primary_key=True),
    Column("patient_key", Text, primary_key=True),
    Column("split", Text, nullable=False),
    Column("assigned_at", Float, nullable=False),
)

runs = Table(
    "runs",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("plugin", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("dataset_id", Text, ForeignKey("datasets.dataset_id"), nullable=False),
    Column("recipe", Text, nullable=False, server_default="{}"),
    Column("plan", Text),
    Column("progress", Text),
    Column("result", Text),
    Column("error", Text, nullable=False, server_default=""),
    Column("lease_owner", Text),
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("finished_at", Float),
    Column("origin", Text, nullable=False, server_default="person"),  # person | night
    Column("plan_key", Text, nullable=False, server_default=""),  # which [[training.plan]] it is of
    Column("at_once", Integer, nullable=False, server_default="0"),  # a person did not want to wait for a window
    Column("pause_code", Text, nullable=False, server_default=""),  # a domain.PauseCode while PAUSED
    Column("paused_at", Float),
    Index(None, "state"),
)

expenses = Table(
    "expenses",
    metadata,
    # The ledger of training: a row for each stretch a run worked, and for each pause, refusal and failure.
    Column("expense_id", Integer, primary_key=True),
    Column("run_id", Text, nullable=False),
    Column("plugin", Text, nullable=False),
    Column("kind", Text, nullable=False),  # work | pause | fail | finish | refuse
    Column("code", Text, nullable=False, server_default=""),  # a domain.PauseCode, for a pause or refusal
    Column("began_at", Float, nullable=False),
    Column("ended_at", Float, nullable=False),
    Column("night", Text, nullable=False),  # the date on which the night began, noon to noon
    Column("year", Integer, nullable=False),
    Column("seconds", Float, nullable=False, server_default="0"),
    Column("kwh", Float, nullable=False, server_default="0"),
    Column("pf_days", Float, nullable=False, server_default="0"),
    Column("money", Float, nullable=False, server_default="0"),
    Column("details", Text, nullable=False, server_default="{}"),  # peaks, steps, the estimate beside it
    Index(None, "run_id"),
    Index(None, "night"),
    Index(None, "year"),
)

gate_reports = Table(
    "gate_reports",
    metadata,
    # A candidate beside the model in use; the newest row of a candidate counts. Rows are never changed.
    Column("report_id", Text, primary_key=True),
    Column("plugin", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("incumbent", Text, nullable=False, server_default=""),  # digest of the model in use then; empty: none
    Column("dataset_id", Text, nullable=False),
    Column("passed", Integer, nullable=False),
    Column("document", Text, nullable=False),
    Column("at", Float, nullable=False),
    Index(None, "plugin", "name", "version"),
)

approvals = Table(
    "approvals",
    metadata,
    # A named person wants a candidate to be active, having seen this report. Rows are never changed.
    Column("approval_id", Text, primary_key=True),
    Column("report_id", Text, ForeignKey("gate_reports.report_id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False, server_default=""),
    Column("at", Float, nullable=False),
    Index(None, "report_id"),
)

shadows = Table(
    "shadows",
    metadata,
    # What a candidate said of a study beside what the model in use had said; nothing of it is ever released.
    Column("shadow_id", Text, primary_key=True),
    Column("plugin", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("study_id", Text, nullable=False),
    Column("study_version", Integer, nullable=False),
    Column("differs", Integer, nullable=False),
    Column("document", Text, nullable=False),
    Column("at", Float, nullable=False),
    UniqueConstraint("digest", "study_id", "study_version"),
    Index(None, "plugin", "name", "version"),
)
