"""Builds ``result.json``, the result for machines, and its JSON Schema.

It names the study by UIDs and by the appliance's own id and carries no name, birth date or patient number:
whoever may know the patient has the study, and a file that is copied into scripts, tickets and dashboards
should not identify anybody. Free text of the scanner (descriptions, station names) is left out for the same
reason. Words stand in it only as the guard released them; of withheld statements it tells rule and reason.

``python -m clinic_ai.results.document`` prints the schema; ``docs/result.schema.json`` is that output.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field

from clinic_ai.domain import (
    Audience,
    CloseCode,
    Finding,
    GuardAction,
    Key,
    ModelRef,
    PatientIdentity,
    Presence,
    Probability,
    Released,
    ReportSection,
    Sha256,
    StatementKind,
    StoredFile,
    ValidationFigures,
    Word,
)
from clinic_ai.results.anatomy import place_code
from clinic_ai.results.codes import finding_code
from clinic_ai.results.overlays import shown_masks
from clinic_ai.results.statements import parted
from clinic_ai.tasks import RenderTask

SCHEMA_VERSION: Literal[1] = 1


class Facts(Word):
    """What kind of study it is, without the scanner's free text."""

    modalities: tuple[str, ...]
    body_parts: tuple[str, ...]
    views: tuple[str, ...]
    sop_class_uids: tuple[str, ...]
    slices: int = Field(description="Number of images; frames are summed over all instances.")


class StudyPart(Word):
    """Which study it is and why the appliance held it to be complete; times are UTC seconds since the epoch."""

    study_id: str = Field(description="The appliance's own id.")
    version: int
    study_instance_uid: str
    source: str = Field(description="The drop folder or sender it came from.")
    closed_code: CloseCode | None = Field(
        description="Why it was held to be complete; null for a study closed by a version that did not keep codes."
    )
    closed_reason: str = Field(
        description="The same as a sentence, with figures: what is missing, if that can be told."
    )
    remarks: tuple[str, ...] = Field(
        description="Sentences on how the study was put together: UIDs that are the appliance's own, objects replaced."
    )
    received_at: float
    facts: Facts


class OriginalPart(Word):
    """One stored object of the study as it arrived."""

    sha256: Sha256
    sop_instance_uid: str
    sop_class_uid: str


class CodePart(Word):
    """A code as DICOM writes it."""

    scheme: str
    code: str
    meaning: str


class MeasurePart(Word):
    """What was measured on a mask of a finding; null is what is not known."""

    size_mm: float | None = Field(description="Of the largest piece; what it measures, size_is says.")
    size_is: Literal["diameter", "depth"] = Field(description="Longest diameter, or the depth of free fluid.")
    volume_mm3: float | None = Field(description="Volume of all pieces.")
    pieces: int
    side: str
    place: str = Field(description="In words of the table of anatomy; empty where the place is not in it.")


class FindingPart(Word):
    """A finding whose statement the guard released; ``probability`` is calibrated and ``threshold`` its cut."""

    statement_id: str
    condition: Key
    label: str
    code: CodePart
    probability: Probability
    threshold: Probability
    presence: Presence = Field(description="What holds: the signer's word if it is corrected, else the software's.")
    corrected: bool = Field(
        default=False, description="Whether the signer says otherwise than the software; probability stays its own."
    )
    laterality: str
    instance_sha256: Sha256
    validation: ValidationFigures | None
    measures: tuple[MeasurePart, ...] = Field(
        default=(),
        description="Of the condition's masks in the same analysis; none where it is absent.",
    )


class StatementPart(Word):
    """A sentence as the guard released it."""

    statement_id: str
    kind: StatementKind
    section: ReportSection | None = Field(default=None, description="Of a written report; null for what is in none.")
    text: str
    annotations: tuple[str, ...]


class AnswerPart(Word):
    """An answer to a question about an image; its words are those of the statement, as the guard released them."""

    statement_id: str
    question: str
    text: str = Field(description="Question, answer, how sure the model is, and notes, as released.")
    annotations: tuple[str, ...]
    instance_sha256: Sha256 | None
    image: int | None = Field(description="Number of the image among those of the study, from 1.")
    frame: int | None = Field(description="Counted from 1; null for an object of one frame.")
    category: str
    adapter: str = Field(description="Slot of the adapter that answered; empty if the base did.")
    confidence: Probability | None = Field(description="Calibrated probability that the software's answer is right.")


class DecisionPart(Word):
    """One rule that spoke about one statement; the statement's own words are not here."""

    statement_id: str
    rule: str
    action: GuardAction
    reason: str


class GuardPart(Word):
    """What the guard decided, for whom and under which policy."""

    audience: Audience
    action: GuardAction
    policy_name: str
    policy_hash: Sha256
    marks: tuple[str, ...] = Field(description="Sentences that stand on every page; show them with any finding.")
    decisions: tuple[DecisionPart, ...]


class FilePart(Word):
    """A file delivered beside this one."""

    name: str
    media_type: str
    sha256: Sha256
    size_bytes: int


class SignedPart(Word):
    """The named person who signed the result."""

    review_id: str = Field(description="The decision, as the audit names it.")
    name: str
    at: float = Field(description="UTC seconds since the epoch.")
    revision: int = Field(description="Counts the signed results of this version of the study from 1.")
    amended: bool = Field(description="Whether the person changed the software's words.")


class ResultDocument(Word):
    """The result of one study version as ``result.json``."""

    schema_version: Literal[1] = SCHEMA_VERSION
    status: Literal["preliminary", "final"] = Field(
        default="preliminary",
        description="preliminary: made by software and not signed by anybody; final: reviewed and signed.",
    )
    signed: SignedPart | None = Field(default=None, description="Who signed it; null for a preliminary result.")
    software: str
    created_at: float = Field(description="UTC seconds since the epoch.")
    study: StudyPart
    originals: tuple[OriginalPart, ...]
    plugins: tuple[str, ...] = Field(description="Name and version of each plugin that analysed the study.")
    models: tuple[ModelRef, ...]
    findings: tuple[FindingPart, ...]
    answers: tuple[AnswerPart, ...] = Field(description="What the released answers are about and who gave them.")
    statements: tuple[StatementPart, ...] = Field(description="Everything the guard released, in words.")
    guard: GuardPart
    files: tuple[FilePart, ...]
    omissions: tuple[str, ...] = Field(description="In words, what could not be made.")


def result_document(task: RenderTask, *, files: Sequence[StoredFile], omissions: Sequence[str]) -> bytes:
    """Return ``result.json`` in UTF-8: ``files`` are those delivered, ``omissions`` what the renderer said.

    Raise PluginError if a released finding names a condition that the table of codes does not have.
    """
    document = build_document(task, files=files, omissions=omissions)
    return (document.model_dump_json(indent=2) + "\n").encode()


def build_document(task: RenderTask, *, files: Sequence[StoredFile], omissions: Sequence[str]) -> ResultDocument:
    """Return the document before it is written; see ``result_document``."""
    numbers = task.verdict.audience is Audience.CLINICIAN
    released = parted(task.findings, task.verdict).findings if numbers else ()
    sign = task.sign_off
    return ResultDocument(
        status="preliminary" if sign is None else "final",
        signed=sign
        and SignedPart(
            review_id=sign.review_id, name=sign.name, at=sign.at, revision=sign.revision, amended=sign.amended
        ),
        software=task.software,
        created_at=task.created_at,
        study=_study(task),
        originals=tuple(
            OriginalPart(
                sha256=image.sha256,
                sop_instance_uid=image.header.sop_instance_uid,
                sop_class_uid=image.header.sop_class_uid,
            )
            for image in task.images
        ),
        plugins=task.plugin_labels,
        models=task.models,
        findings=tuple(_finding(task, finding, said) for finding, said in released),
        answers=tuple(_answers(task)) if numbers else (),
        statements=tuple(_statement(said) for said in task.verdict.released),
        guard=_guard(task),
        files=tuple(
            FilePart(name=file.name, media_type=file.media_type, sha256=file.sha256, size_bytes=file.size_bytes)
            for file in files
        ),
        omissions=tuple(omissions),
    )


def _study(task: RenderTask) -> StudyPart:
    facts = task.facts
    return StudyPart(
        study_id=task.study_id,
        version=task.version,
        study_instance_uid=task.study_instance_uid,
        source=task.source,
        closed_code=task.close_code,
        closed_reason=task.closed_reason,
        remarks=task.remarks,
        received_at=task.received_at,
        facts=Facts(
            modalities=facts.modalities,
            body_parts=_impersonal(facts.body_parts, task.identity),
            views=_impersonal(facts.views, task.identity),
            sop_class_uids=facts.sop_class_uids,
            slices=facts.slices,
        ),
    )


def _impersonal(values: Sequence[str], identity: PatientIdentity) -> tuple[str, ...]:
    """Return the values that share no word with the patient's identity: people type names into any field."""
    own = set(_words(" ".join((identity.patient_name, identity.patient_id, identity.accession_number))))
    return tuple(value for value in values if not own.intersection(_words(value)))


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[\W_]+", text.casefold()) if len(word) > 2]


def _finding(task: RenderTask, finding: Finding, said: Released) -> FindingPart:
    entry, sign = finding_code(finding.condition), task.sign_off
    corrected = None if sign is None else sign.correction_of(finding)
    return FindingPart(
        statement_id=said.statement_id,
        condition=finding.condition,
        label=entry.label,
        code=CodePart(scheme=entry.scheme, code=entry.code, meaning=entry.meaning),
        probability=finding.probability,
        threshold=finding.threshold,
        presence=corrected or finding.presence,
        corrected=corrected is not None,
        laterality=finding.laterality,
        instance_sha256=finding.instance_sha256,
        validation=finding.validation,
        measures=tuple(_measures(task, finding, said)),
    )


def _measures(task: RenderTask, finding: Finding, said: Released) -> Iterator[MeasurePart]:
    place = int(said.statement_id.removeprefix("f_")) - 1
    for outlines in task.outlines:
        if place not in outlines.findings:
            continue
        for mask in shown_masks(outlines, task.findings, task.verdict, task.sign_off):
            if mask.name == finding.condition:
                where = place_code(mask.level)
                yield MeasurePart(
                    size_mm=mask.size_mm,
                    size_is=mask.size_is,
                    volume_mm3=mask.volume_mm3,
                    pieces=mask.count,
                    side=mask.side,
                    place=where.label if where else "",
                )


def _answers(task: RenderTask) -> Iterator[AnswerPart]:
    numbers = task.image_numbers()
    said = {released.statement_id: released for released in parted(task.findings, task.verdict).others}
    for origin in task.answers:
        if origin.statement_id in said:
            released = said[origin.statement_id]
            yield AnswerPart(
                statement_id=origin.statement_id,
                question=origin.question,
                text=released.text,
                annotations=released.annotations,
                instance_sha256=origin.instance_sha256,
                image=numbers.get(origin.instance_sha256 or ""),
                frame=None if origin.frame is None else origin.frame + 1,
                category=origin.category,
                adapter=origin.adapter,
                confidence=origin.confidence,
            )


def _statement(said: Released) -> StatementPart:
    return StatementPart(
        statement_id=said.statement_id,
        kind=said.kind,
        section=said.section,
        text=said.text,
        annotations=said.annotations,
    )


def _guard(task: RenderTask) -> GuardPart:
    verdict = task.verdict
    return GuardPart(
        audience=verdict.audience,
        action=verdict.action,
        policy_name=verdict.policy_name,
        policy_hash=verdict.policy_hash,
        marks=verdict.marks,
        decisions=tuple(
            DecisionPart(statement_id=d.statement_id, rule=d.rule, action=d.action, reason=d.reason)
            for d in verdict.decisions
        ),
    )


def schema() -> str:
    """Return the JSON Schema of ``result.json`` as text, ending in a newline."""
    body = ResultDocument.model_json_schema(mode="serialization")
    body = {"$schema": "https://json-schema.org/draft/2020-12/schema", **body}
    return json.dumps(body, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema())
