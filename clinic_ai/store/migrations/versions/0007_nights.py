"""Nights: why runs are paused, what training costs, what candidates showed, who approved them, shadow runs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    _new_columns()
    _expenses()
    _gate()


def _new_columns() -> None:
    with op.batch_alter_table("datasets", schema=None) as batch_op:
        batch_op.add_column(sa.Column("lineage", sa.Text(), server_default="{}", nullable=False))
    with op.batch_alter_table("activations", schema=None) as batch_op:
        batch_op.add_column(sa.Column("approval_id", sa.Text(), nullable=True))
    with op.batch_alter_table("runs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("origin", sa.Text(), server_default="person", nullable=False))
        batch_op.add_column(sa.Column("plan_key", sa.Text(), server_default="", nullable=False))
        batch_op.add_column(sa.Column("at_once", sa.Integer(), server_default="0", nullable=False))
        batch_op.add_column(sa.Column("pause_code", sa.Text(), server_default="", nullable=False))
        batch_op.add_column(sa.Column("paused_at", sa.Float(), nullable=True))


def _expenses() -> None:
    op.create_table(
        "expenses",
        sa.Column("expense_id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("plugin", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("code", sa.Text(), server_default="", nullable=False),
        sa.Column("began_at", sa.Float(), nullable=False),
        sa.Column("ended_at", sa.Float(), nullable=False),
        sa.Column("night", sa.Text(), nullable=False),
        sa.Column("year", sa.Integer(), nullable=False),
        sa.Column("seconds", sa.Float(), server_default="0", nullable=False),
        sa.Column("kwh", sa.Float(), server_default="0", nullable=False),
        sa.Column("pf_days", sa.Float(), server_default="0", nullable=False),
        sa.Column("money", sa.Float(), server_default="0", nullable=False),
        sa.Column("details", sa.Text(), server_default="{}", nullable=False),
        sa.PrimaryKeyConstraint("expense_id", name=op.f("pk_expenses")),
    )
    with op.batch_alter_table("expenses", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_expenses_run_id"), ["run_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_expenses_night"), ["night"], unique=False)
        batch_op.create_index(batch_op.f("ix_expenses_year"), ["year"], unique=False)


def _gate() -> None:
    op.create_table(
        "gate_reports",
        sa.Column("report_id", sa.Text(), nullable=False),
        sa.Column("plugin", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("incumbent", sa.Text(), server_default="", nullable=False),
        sa.Column("dataset_id", sa.Text(), nullable=False),
        sa.Column("passed", sa.Integer(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("report_id", name=op.f("pk_gate_reports")),
    )
    with op.batch_alter_table("gate_reports", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_gate_reports_plugin_name_version"), ["plugin", "name", "version"], unique=False
        )

    op.create_table(
        "approvals",
        sa.Column("approval_id", sa.Text(), nullable=False),
        sa.Column("report_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["report_id"], ["gate_reports.report_id"], name=op.f("fk_approvals_report_id_gate_reports")
        ),
        sa.PrimaryKeyConstraint("approval_id", name=op.f("pk_approvals")),
    )
    with op.batch_alter_table("approvals", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_approvals_report_id"), ["report_id"], unique=False)

    op.create_table(
        "shadows",
        sa.Column("shadow_id", sa.Text(), nullable=False),
        sa.Column("plugin", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("study_id", sa.Text(), nullable=False),
        sa.Column("study_version", sa.Integer(), nullable=False),
        sa.Column("differs", sa.Integer(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("shadow_id", name=op.f("pk_shadows")),
        sa.UniqueConstraint(
            "digest", "study_id", "study_version", name=op.f("uq_shadows_digest_study_id_study_version")
        ),
    )
    with op.batch_alter_table("shadows", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_shadows_plugin_name_version"), ["plugin", "name", "version"], unique=False)
