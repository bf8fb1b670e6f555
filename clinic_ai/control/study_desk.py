"""One study in depth: its series and images, its findings for clinicians, and its history."""

from __future__ import annotations

from itertools import groupby
from typing import Annotated

from fastapi import APIRouter, Query

from clinic_ai.control.asking import Content, Having
from clinic_ai.control.study_views import (
    MAX_IMAGES,
    FindingsView,
    FoundRow,
    HappenedRow,
    HistoryView,
    ImageRow,
    SeriesRow,
    SeriesView,
    StackImages,
)
from clinic_ai.domain import Artefact, ArtefactState, Audience, Finding, Released
from clinic_ai.domain.reviews import Review
from clinic_ai.ingest.geometry import StackGeometry
from clinic_ai.ingest.geometry_words import line_of
from clinic_ai.ingest.stacks import dot
from clinic_ai.results.codes import finding_code
from clinic_ai.results.previews import Stacked, readable
from clinic_ai.results.statements import findings_of, parted
from clinic_ai.store import artefacts, changes, jobs, reviews, studies

router = APIRouter(prefix="/v1/studies", tags=["studies"])


@router.get("/{study_id}/series")
def get_series(study_id: str, services: Having) -> SeriesView:
    """Return the series of a study's newest version, with the numbers under which pictures are asked for."""
    found = services.previews.stacks(study_id)
    numbered = enumerate(found.stacks, start=1)
    return SeriesView(
        study_id=study_id,
        version=found.version,
        series=tuple(
            _series([(number, geometry) for number, geometry in group])
            for _, group in groupby(numbered, key=lambda pair: pair[1].stack.series_instance_uid)
        ),
    )


def _series(stacks: list[tuple[int, StackGeometry]]) -> SeriesRow:
    header = stacks[0][1].stack.planes[0].header
    return SeriesRow(
        number=header.series_number,
        modality=header.modality,
        description=header.series_description,
        stacks=tuple(
            StackImages(
                number=number,
                line=line_of(found),
                images=found.stack.images,
                regular=found.regular,
                scout=found.stack.scout,
                remarks=tuple(remark.sentence for remark in found.remarks),
                files=_files(found),
            )
            for number, found in stacks
        ),
    )


def _files(found: StackGeometry) -> tuple[ImageRow, ...]:
    """Return one row for each run of images of one file."""
    rows: list[ImageRow] = []
    first = 1
    for sha256, group in groupby(found.stack.planes, key=lambda plane: plane.sha256):
        planes = list(group)
        frames, plane = sum(plane.images for plane in planes), planes[0]
        rows.append(
            ImageRow(
                first=first,
                frames=frames,
                instance_number=plane.header.instance_number,
                sha256=sha256,
                rows=plane.header.rows,
                columns=plane.header.columns,
                position_mm=None if plane.position is None or not plane.placed else dot(plane.normal, plane.position),
            )
        )
        first += frames
        if len(rows) == MAX_IMAGES:
            break
    return tuple(rows)


# ---------------------------------------------------------------- findings


@router.get("/{study_id}/findings")
def get_findings(study_id: str, services: Having, person: Content) -> FindingsView:  # noqa: ARG001 - the role
    """Return the findings that the guard released for clinicians, with their probabilities."""
    stacked = services.previews.stacks(study_id)
    with services.database.read() as connection:
        study = studies.get_study(connection, study_id)
        findings = findings_of([a for _, a in jobs.analyses_of(connection, study_id, study.version)])
        made = artefacts.artefacts_of(connection, study_id, study.version)
        told = readable(made)
        review = reviews.get_review(connection, told.review_id) if told is not None and told.review_id else None
    if told is None:
        return FindingsView(
            study_id=study_id,
            version=study.version,
            artefact_id="",
            state="",
            findings=(),
            withheld=len(findings),
            note=_why_none(made, findings),
        )
    found = parted(findings, told.verdict).findings
    withheld = len(findings) - len(found)
    return FindingsView(
        study_id=study_id,
        version=study.version,
        artefact_id=told.artefact_id,
        state=told.state.value,
        findings=tuple(_found(finding, words, review, stacked) for finding, words in found),
        withheld=withheld,
        note=f"The guard keeps back {withheld} of {len(findings)} findings." if withheld else "",
    )


def _why_none(made: list[Artefact], findings: tuple[Finding, ...]) -> str:
    held = {ArtefactState.HELD, ArtefactState.BLOCKED}
    if any(artefact.audience is Audience.CLINICIAN and artefact.state in held for artefact in made):
        return "The guard held the report, so its findings are seen in the review alone."
    if findings:
        return "The findings are not through the guard yet."
    return "Nothing has judged this study for a condition."


def _found(finding: Finding, words: Released, review: Review | None, stacked: Stacked) -> FoundRow:
    corrections = {} if review is None else {c.condition: c.presence for c in review.document.corrections}
    signed = corrections.get(finding.condition, finding.presence)
    stack, image = _seen_in(finding.instance_sha256, stacked)
    return FoundRow(
        condition=finding.condition,
        label=finding_code(finding.condition).label,
        laterality=finding.laterality,
        presence=finding.presence,
        signed=None if signed is finding.presence else signed,
        probability=finding.probability,
        threshold=finding.threshold,
        model=finding.model,
        stack=stack,
        image=image,
        heatmap=finding.heatmap is not None,
        words=words.text,
        validation=finding.validation,
    )


def _seen_in(sha256: str, stacked: Stacked) -> tuple[int, int]:
    """Return the numbers of stack and image that show a file, (0, 0) if none does."""
    for number, found in enumerate(stacked.stacks, start=1):
        image = 1
        for plane in found.stack.planes:
            if plane.sha256 == sha256:
                return number, image
            image += plane.images
    return 0, 0


# ---------------------------------------------------------------- history


@router.get("/{study_id}/history")
def get_history(
    study_id: str,
    services: Having,
    limit: Annotated[int, Query(ge=1, le=1000, description="Rows at most, the newest.")] = 200,
) -> HistoryView:
    """Return what the audit says of a study and its jobs, the newest first."""
    with services.database.read() as connection:
        studies.get_study(connection, study_id)  # raises NotFound
        versions = studies.versions_of(connection, study_id)
        work = [job.job_id for one in versions for job in jobs.jobs_of(connection, study_id, one.version)]
        since = min(one.opened_at for one in versions)
        found = changes.about(connection, (study_id, *work), since=since - 1, limit=limit + 1)
    return HistoryView(
        study_id=study_id,
        rows=tuple(HappenedRow.model_validate(row) for row in found[:limit]),
        more=len(found) > limit,
    )
