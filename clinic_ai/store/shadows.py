"""What candidates said of studies in the shadow, and the studies they can be run on. Nothing of it is ever released."""

from __future__ import annotations

from sqlalchemy import Connection, insert, select

from clinic_ai.domain import Analysis, JobKind, JobState, StudyState
from clinic_ai.promoting import Shadow, ShadowDocument
from clinic_ai.store.tables import analyses, jobs, shadows, studies


def add_shadow(connection: Connection, shadow: Shadow) -> None:
    """Store a shadow run, in place of an earlier one of the same candidate on the same study version."""
    statement = insert(shadows).prefix_with("OR REPLACE")
    connection.execute(
        statement.values(
            shadow_id=shadow.shadow_id,
            plugin=shadow.plugin,
            name=shadow.name,
            version=shadow.version,
            digest=shadow.digest,
            study_id=shadow.study_id,
            study_version=shadow.study_version,
            differs=int(shadow.document.differs),
            document=shadow.document.model_dump_json(),
            at=shadow.at,
        )
    )


def shadows_of(connection: Connection, digest: str) -> list[Shadow]:
    """Return the shadow runs of a candidate, newest first."""
    query = select(shadows).where(shadows.c.digest == digest).order_by(shadows.c.at.desc(), shadows.c.shadow_id)
    return [
        Shadow(
            shadow_id=row.shadow_id,
            plugin=row.plugin,
            name=row.name,
            version=row.version,
            digest=row.digest,
            study_id=row.study_id,
            study_version=row.study_version,
            document=ShadowDocument.model_validate_json(row.document),
            at=row.at,
        )
        for row in connection.execute(query)
    ]


def analysed_since(connection: Connection, plugin: str, since: float, most: int) -> list[tuple[str, int, Analysis]]:
    """Return study, version and analysis of what a plugin analysed since then (UTC seconds), newest first.

    Of each study its newest analysis, while its originals are here and no newer version has taken its place.
    """
    query = (
        select(analyses.c.study_id, analyses.c.version, analyses.c.document)
        .join(jobs, jobs.c.job_id == analyses.c.job_id)
        .join(studies, (studies.c.study_id == analyses.c.study_id) & (studies.c.version == analyses.c.version))
        .where(
            jobs.c.plugin == plugin,
            jobs.c.kind == JobKind.ANALYSE.value,
            jobs.c.state == JobState.DONE.value,
            analyses.c.created_at >= since,
            studies.c.state != StudyState.SUPERSEDED.value,
            studies.c.originals_removed_at.is_(None),
        )
        .order_by(analyses.c.created_at.desc())
    )
    found: dict[str, tuple[str, int, Analysis]] = {}
    for row in connection.execute(query):
        if row.study_id not in found:
            if len(found) == most:
                break
            found[row.study_id] = (row.study_id, row.version, Analysis.model_validate_json(row.document))
    return list(found.values())
