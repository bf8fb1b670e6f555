"""Critical findings: alerts that repeat until a named person acknowledges them, and their notices to the outside."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "critical_alerts",
        sa.Column("alert_id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Text(), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("category", sa.Integer(), nullable=False),
        sa.Column("waits_s", sa.Text(), nullable=False),
        sa.Column("escalate_after", sa.Integer(), nullable=False),
        sa.Column("escalate_to", sa.Text(), nullable=False),
        sa.Column("raised_at", sa.Float(), nullable=False),
        sa.Column("notices", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_at", sa.Float(), nullable=False),
        sa.Column("told_to", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["alert_id"], ["alerts.alert_id"], name=op.f("fk_critical_alerts_alert_id_alerts")),
        sa.PrimaryKeyConstraint("alert_id", name=op.f("pk_critical_alerts")),
    )
    with op.batch_alter_table("critical_alerts", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_critical_alerts_study_id_what"), ["study_id", "what"], unique=False)

    op.create_table(
        "critical_findings",
        sa.Column("study_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("alert_id", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("found_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["alert_id"], ["alerts.alert_id"], name=op.f("fk_critical_findings_alert_id_alerts")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.job_id"], name=op.f("fk_critical_findings_job_id_jobs")),
        sa.PrimaryKeyConstraint("study_id", "version", "what", name=op.f("pk_critical_findings")),
    )
    with op.batch_alter_table("critical_findings", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_critical_findings_alert_id"), ["alert_id"], unique=False)

    op.create_table(
        "notices",
        sa.Column("notice_id", sa.Integer(), nullable=False),
        sa.Column("alert_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("not_before", sa.Float(), server_default="0", nullable=False),
        sa.Column("error", sa.Text(), server_default="", nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("done_at", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["alert_id"], ["alerts.alert_id"], name=op.f("fk_notices_alert_id_alerts")),
        sa.PrimaryKeyConstraint("notice_id", name=op.f("pk_notices")),
        sa.UniqueConstraint("alert_id", "number", "channel", name=op.f("uq_notices_alert_id_number_channel")),
    )
    with op.batch_alter_table("notices", schema=None) as batch_op:
        batch_op.create_index(
            "pending_notices", ["channel", "not_before"], unique=False, sqlite_where=sa.text("state = 'PENDING'")
        )
