"""A study as the daemon would tell of it, for the screen of one study: chest, three results, one file in quarantine."""

from __future__ import annotations

import base64
from typing import Any

from screens import NOW, Exhibit, made_status

from clinic_ai.control.preview_views import PreviewView, WindowView
from clinic_ai.control.study_views import (
    FindingsView,
    FoundRow,
    HappenedRow,
    HistoryView,
    ImageRow,
    SeriesRow,
    SeriesView,
    StackImages,
)
from clinic_ai.control.views import (
    ArtefactRow,
    ChoiceRow,
    DecisionRow,
    DeliveryRow,
    FileRow,
    RouteView,
    StatusView,
    StudyPage,
    StudyRow,
    StudyView,
    VersionView,
)
from clinic_ai.domain import (
    Audience,
    Job,
    JobKind,
    JobState,
    ModelRef,
    Presence,
    Released,
    StudyFacts,
    StudyState,
    ValidationFigures,
)

STUDY = "S-20261121-7F3K9QXB"
POLICY = "b" * 64
MARK = "Reference model, not for clinical use."
SAID = "The image most likely shows pneumonia on the left."
FACTS = StudyFacts(
    source="ct room", modalities=("CT",), body_parts=("CHEST",), slices=29, study_description="Chest, native"
)


def made_row(**changes: Any) -> StudyRow:
    values: dict[str, Any] = {
        "study_id": STUDY,
        "version": 1,
        "state": StudyState.DONE,
        "pseudonym": "P-7K2M9QX4",
        "source": "ct room",
        "facts": FACTS,
        "priority": 50,
        "priority_reason": "tess ordered it",
        "opened_at": NOW - 900,
        "last_instance_at": NOW - 880,
        "closed_at": NOW - 850,
        "closed_reason": "nothing arrived for 30 s",
        "wait": None,
    }
    return StudyRow.model_validate(values | changes)


def made_artefact(**changes: Any) -> ArtefactRow:
    said = Released(statement_id="f_1", audience=Audience.CLINICIAN, text=SAID, policy_hash=POLICY)
    values: dict[str, Any] = {
        "artefact_id": "A-20261121-AAAAAAAA",
        "audience": "clinician",
        "state": "PRELIMINARY",
        "action": "annotate",
        "policy_name": "default",
        "policy_hash": POLICY,
        "decisions": (
            DecisionRow(rule="marks.reference_model", action="annotate", reason="The model is a reference model."),
        ),
        "files": (),
        "deliveries": (
            DeliveryRow(target="outbox", state="RECEIPTED", attempt=1, place="outbox/S-1", error="", done_at=NOW),
        ),
        "signed_by": "",
        "created_at": NOW - 600,
        "released": (said,),
        "marks": (MARK,),
    }
    return ArtefactRow.model_validate(values | changes)


def made_file(number: int, fate: str = "STORED", **changes: Any) -> FileRow:
    values: dict[str, Any] = {
        "file_id": number,
        "source": "ct room",
        "name": f"CHEST/{number:04d}.dcm",
        "size_bytes": 526_000,
        "sha256": f"{number:064x}",
        "fate": fate,
        "reason_code": "",
        "reason": "",
        "remedy": "",
        "study_id": STUDY,
        "seen_at": NOW - 900,
        "decided_at": NOW - 890,
    }
    return FileRow.model_validate(values | changes)


ODD_FILE = made_file(
    9,
    "QUARANTINED",
    reason_code="conflict",
    reason="It has the UID of an object that is stored with other pixels.",
    remedy="Compare the two and decide which of them is right.",
)


def made_study(*, content: bool = True, **changes: Any) -> StudyView:
    clinician = made_artefact() if content else made_artefact(released=None, marks=())
    patient = made_artefact(
        artefact_id="A-20261121-BBBBBBBB",
        audience="patient",
        state="HELD",
        action="hold",
        decisions=(DecisionRow(rule="patient.new_finding", action="hold", reason="A doctor tells a patient first."),),
        deliveries=(),
        released=None,
        marks=(),
    )
    job = Job(
        job_id="J-20261121-AAAAAAAA",
        kind=JobKind.ANALYSE,
        study_id=STUDY,
        version=1,
        plugin="xray",
        state=JobState.DONE,
        attempt=1,
        models=(ModelRef(plugin="xray", name="mobilenet", version="1.0", digest="c" * 64),),
        created_at=NOW - 840,
    )
    values: dict[str, Any] = {
        "study_id": STUDY,
        "content": content,
        "versions": (VersionView(study=made_row(), instances=29, jobs=(job,), artefacts=(clinician, patient)),),
        "files": (*(made_file(number) for number in range(1, 9)), ODD_FILE),
    }
    return StudyView.model_validate(values | changes)


def made_series(slices: int = 28) -> SeriesView:
    files = tuple(
        ImageRow(
            first=n, frames=1, instance_number=n, sha256=f"{n:064x}", rows=512, columns=512, position_mm=5.0 * n - 70
        )
        for n in range(1, slices + 1)
    )
    scout = StackImages(
        number=1, line="CT, scout, 1 image", images=1, regular=False, scout=True, remarks=(), files=files[:1]
    )
    stack = StackImages(
        number=2,
        line=f"CT, {slices} slices, axial, 5.0 mm apart, regular",
        images=slices,
        regular=True,
        scout=False,
        remarks=("The gantry was tilted by 2 degrees.",),
        files=files,
    )
    return SeriesView(
        study_id=STUDY,
        version=1,
        series=(
            SeriesRow(number=1, modality="CT", description="Scout", stacks=(scout,)),
            SeriesRow(number=2, modality="CT", description="Chest 5.0 B31f", stacks=(stack,)),
        ),
    )


def made_findings(**changes: Any) -> FindingsView:
    figures = ValidationFigures(
        dataset="D-1", positives=120, negatives=880, auroc=0.91, auroc_low=0.88, auroc_high=0.94
    )
    pneumonia = FoundRow(
        condition="pneumonia",
        label="Pneumonia",
        laterality="left",
        presence=Presence.PRESENT,
        signed=None,
        probability=0.93,
        threshold=0.47,
        model="main",
        stack=2,
        image=12,
        heatmap=True,
        words=SAID,
        validation=figures,
    )
    effusion = pneumonia.model_copy(
        update={
            "condition": "pleural_effusion",
            "label": "Pleural effusion",
            "laterality": "",
            "presence": Presence.ABSENT,
            "signed": Presence.PRESENT,
            "probability": 0.08,
            "threshold": 0.55,
            "heatmap": False,
            "words": "Pleural effusion is unlikely.",
            "validation": None,
        }
    )
    values: dict[str, Any] = {
        "study_id": STUDY,
        "version": 1,
        "artefact_id": "A-20261121-AAAAAAAA",
        "state": "PRELIMINARY",
        "findings": (effusion, pneumonia),
        "withheld": 1,
        "note": "The guard keeps back 1 of 3 findings.",
    }
    return FindingsView.model_validate(values | changes)


def made_history() -> HistoryView:
    told = (
        ("ingest", "study.open", STUDY, 900),
        ("ingest", "study.close", STUDY, 850),
        ("router", "study.route", STUDY, 849),
        ("clinic-ai", "job.lease", "J-20261121-AAAAAAAA", 840),
        ("clinic-ai", "analysis.stored", STUDY, 700),
        ("guard", "artefact.preliminary", STUDY, 600),
        ("tess", "study.priority", STUDY, 60),
    )
    rows = [
        HappenedRow(seq=n, at=NOW - before, actor=actor, action=action, subject=subject)
        for n, (actor, action, subject, before) in enumerate(told, 1)
    ]
    return HistoryView(study_id=STUDY, rows=tuple(reversed(rows)), more=False)


def made_route() -> RouteView:
    return RouteView(
        facts=FACTS,
        plugins=(ChoiceRow(plugin="xray", rule="chest", priority=0),),
        missing=(),
        explanation=(),
        lines=("Rule chest matched: modality CT, body part CHEST.", "It goes to xray."),
    )


def disc(columns: int, rows: int, stack: int, image: int) -> bytes:
    """Return a bright ring whose size says which image it is, on black."""
    radius = min(columns, rows) * (0.15 + 0.3 * ((image * 7) % 28) / 28)
    made = bytearray()
    for y in range(rows):
        for x in range(columns):
            away = ((x - columns / 2) ** 2 + (y - rows / 2) ** 2) ** 0.5
            level = 60 if away < radius - 3 else 230 if away < radius else 0
            made += bytes((level, level, level if stack > 1 else 0))
    return bytes(made)


def preview(study_id: str, **wish: Any) -> PreviewView:
    """Answer as the daemon would, with a ring for a picture."""
    columns, rows, stack, image = wish["columns"], wish["rows"], wish["stack"], wish["image"]
    chosen = wish["window"] or {"": (40, 400), "full": (0, 3000), "lung": (-600, 1500)}[wish["preset"]]
    return PreviewView(
        study_id=study_id,
        version=1,
        stack=stack,
        stacks=2,
        image=image,
        images=1 if stack == 1 else 28,
        frame=1,
        frames=1,
        line="CT, scout, 1 image" if stack == 1 else "CT, 28 slices, axial, 5.0 mm apart, regular",
        position_mm=None if stack == 1 else 5.0 * image - 70,
        columns=columns,
        rows=rows,
        pixels=base64.b64encode(disc(columns, rows, stack, image)).decode(),
        colour=False,
        window=WindowView(centre=chosen[0], width=chosen[1], unit="HU"),
        edges=("A", "L", "P", "R"),
        presets=("full", "lung"),
        overlay="heat map: Pneumonia" if wish["overlay"] else "",
        overlays=("heat map: Pneumonia",),
        overlay_note="",
        remarks=(),
    )


def study_exhibit(*, status: StatusView | None = None, **answers: Any) -> Exhibit:
    """Return a client that knows this study."""
    known: dict[str, Any] = {
        "studies": StudyPage(studies=(), next_before=None),
        "study": made_study(),
        "series": made_series(),
        "findings": made_findings(),
        "history": made_history(),
        "route": made_route(),
        "preview": preview,
    }
    return Exhibit(known | answers, status=made_status() if status is None else status)
