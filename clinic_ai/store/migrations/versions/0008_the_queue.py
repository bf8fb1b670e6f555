"""The queue: what studies are sorted and searched by, in one index, so that ten thousand are looked through at once."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    with op.batch_alter_table("studies", schema=None) as batch_op:
        for name in ("modality", "body_parts", "wait_code", "wait_sentence"):
            batch_op.add_column(sa.Column(name, sa.Text(), server_default="", nullable=False))
    op.execute(
        "UPDATE studies SET modality = ifnull(json_extract(facts, '$.modalities'), ''),"
        " body_parts = ifnull(json_extract(facts, '$.body_parts'), ''),"
        " wait_code = ifnull(json_extract(wait, '$.code'), ''),"
        " wait_sentence = ifnull(json_extract(wait, '$.sentence'), '')"
    )
    # As the application writes them: words with blanks between, and not JSON.
    op.execute("""UPDATE studies SET modality = replace(trim(modality, '[]"'), '","', ' ')""")
    op.execute("""UPDATE studies SET body_parts = replace(trim(body_parts, '[]"'), '","', ' ')""")
    op.create_index(
        "studies_in_queue",
        "studies",
        [
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
        ],
    )
