"""A person decides: what was decided about an artefact, what follows for training, and nothing FINAL without it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

# A later revision that makes these tables anew, as ``batch_alter_table`` may, loses these and has to make them again.
_UNSIGNED = (
    "WHEN NEW.state = 'FINAL' AND NOT EXISTS (SELECT 1 FROM reviews WHERE reviews.review_id = NEW.review_id "
    "AND reviews.decision IN ('accept', 'amend') AND reviews.reviewer != '' AND reviews.reviewer = NEW.signed_by) "
    "BEGIN SELECT RAISE(ABORT, 'nothing is FINAL without the decision of a named person'); END"
)
PERSONS = (
    f"CREATE TRIGGER artefact_born_signed BEFORE INSERT ON artefacts {_UNSIGNED}",
    f"CREATE TRIGGER artefact_becomes_signed BEFORE UPDATE ON artefacts {_UNSIGNED}",
    "CREATE TRIGGER review_stays BEFORE UPDATE OF review_id, artefact_id, study_id, version, decision, reviewer, "
    "actor, reason, digest, document, decided_at ON reviews "
    "BEGIN SELECT RAISE(ABORT, 'what a person decided is never changed'); END",
    "CREATE TRIGGER review_is_kept BEFORE DELETE ON reviews "
    "BEGIN SELECT RAISE(ABORT, 'what a person decided is never removed'); END",
)


def upgrade() -> None:
    op.create_table(
        "reviews",
        sa.Column("review_id", sa.Text(), nullable=False),
        sa.Column("artefact_id", sa.Text(), nullable=False),
        sa.Column("study_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("decision", sa.Text(), nullable=False),
        sa.Column("reviewer", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("consent", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=True),
        sa.Column("decided_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["artefact_id"], ["artefacts.artefact_id"], name=op.f("fk_reviews_artefact_id_artefacts")
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.job_id"], name=op.f("fk_reviews_job_id_jobs")),
        sa.PrimaryKeyConstraint("review_id", name=op.f("pk_reviews")),
    )
    with op.batch_alter_table("reviews", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_reviews_artefact_id"), ["artefact_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_reviews_job_id"), ["job_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_reviews_study_id_version"), ["study_id", "version"], unique=False)

    op.create_table(
        "review_labels",
        sa.Column("review_id", sa.Text(), nullable=False),
        sa.Column("instance_sha256", sa.Text(), nullable=False),
        sa.Column("condition", sa.Text(), nullable=False),
        sa.Column("presence", sa.Text(), nullable=False),
        sa.Column("corrected", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["review_id"], ["reviews.review_id"], name=op.f("fk_review_labels_review_id_reviews")),
        sa.PrimaryKeyConstraint("review_id", "instance_sha256", "condition", name=op.f("pk_review_labels")),
    )
    with op.batch_alter_table("artefacts", schema=None) as batch_op:
        batch_op.add_column(sa.Column("review_id", sa.Text(), server_default="", nullable=False))
        batch_op.add_column(sa.Column("revision", sa.Integer(), server_default="0", nullable=False))
        batch_op.create_index(
            "one_artefact_per_review", ["review_id"], unique=True, sqlite_where=sa.text("review_id != ''")
        )

    # ### end Alembic commands ###
    for trigger in PERSONS:
        op.execute(trigger)
