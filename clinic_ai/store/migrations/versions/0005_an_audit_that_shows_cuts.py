"""An audit that shows cuts: numbers of rows are never given twice, and a decision is about the artefact it names."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"

_AUDIT = (
    "CREATE TABLE audit_anew (seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, at FLOAT NOT NULL, "
    "actor TEXT NOT NULL, action TEXT NOT NULL, subject TEXT NOT NULL, details TEXT NOT NULL, "
    "previous_hash TEXT NOT NULL, hash TEXT NOT NULL)",
    # As they are, damaged ones too: what was found before must be found after.
    "INSERT INTO audit_anew (seq, at, actor, action, subject, details, previous_hash, hash) "
    "SELECT seq, at, actor, action, subject, details, previous_hash, hash FROM audit ORDER BY seq",
    "DROP TABLE audit",
    "ALTER TABLE audit_anew RENAME TO audit",
    "CREATE INDEX ix_audit_subject ON audit (subject)",
)

# A later revision that makes these tables anew, as ``batch_alter_table`` may, loses these and has to make them again.
_UNSIGNED = (
    "WHEN NEW.state = 'FINAL' AND NOT EXISTS (SELECT 1 FROM reviews WHERE reviews.review_id = NEW.review_id "
    "AND reviews.decision IN ('accept', 'amend') AND reviews.reviewer != '' AND reviews.reviewer = NEW.signed_by "
    "AND reviews.study_id = NEW.study_id AND reviews.version = NEW.version) "
    "BEGIN SELECT RAISE(ABORT, 'nothing is FINAL without the decision of a named person'); END"
)
_PERSONS = (
    "DROP TRIGGER IF EXISTS artefact_born_signed",
    "DROP TRIGGER IF EXISTS artefact_becomes_signed",
    f"CREATE TRIGGER artefact_born_signed BEFORE INSERT ON artefacts {_UNSIGNED}",
    f"CREATE TRIGGER artefact_becomes_signed BEFORE UPDATE ON artefacts {_UNSIGNED}",
    "CREATE TRIGGER review_is_of_its_artefact BEFORE INSERT ON reviews WHEN NOT EXISTS (SELECT 1 FROM artefacts "
    "WHERE artefacts.artefact_id = NEW.artefact_id AND artefacts.study_id = NEW.study_id "
    "AND artefacts.version = NEW.version) "
    "BEGIN SELECT RAISE(ABORT, 'a decision is about the study and version of its artefact'); END",
)


def upgrade() -> None:
    for statement in (*_AUDIT, *_PERSONS):
        op.execute(statement)
