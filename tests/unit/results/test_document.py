"""``result.json``: whole, in step with its published schema, without identity and without withheld words."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from clinic_ai.domain import (
    Audience,
    Decision,
    FileKind,
    Finding,
    GuardAction,
    GuardVerdict,
    InstanceHeader,
    Mask,
    ModelRef,
    PatientIdentity,
    Presence,
    Released,
    StoredFile,
    StudyFacts,
)
from clinic_ai.results.document import build_document, result_document, schema
from clinic_ai.tasks import AnswerOrigin, Outlines, RenderImage, RenderTask

SHA, POLICY = "a" * 64, "b" * 64
SCHEMA = Path(__file__).parents[3] / "docs" / "result.schema.json"
IDENTITY = PatientIdentity(
    patient_id="PAT-4711",
    patient_name="Secret^Person",
    birth_date="19440102",
    sex="F",
    accession_number="ACC-0815",
)


def finding(condition: str, probability: float) -> Finding:
    return Finding(
        condition=condition,
        label="plugin label",
        probability=probability,
        threshold=0.5,
        presence=Presence.PRESENT,
        instance_sha256=SHA,
    )


def task(audience: Audience = Audience.CLINICIAN) -> RenderTask:
    header = InstanceHeader(
        kind=FileKind.DICOM, sop_instance_uid="1.2.3.4", sop_class_uid="1.2.840.10008.5.1.4.1.1.1.1", identity=IDENTITY
    )
    verdict = GuardVerdict(
        audience=audience,
        action=GuardAction.HEDGE,
        decisions=(Decision(statement_id="m_1", rule="wording", action=GuardAction.HEDGE, reason="Too sure."),),
        released=(
            Released(
                statement_id="f_1", kind="finding", audience=audience, text="Released of the first.", policy_hash=POLICY
            ),
            Released(statement_id="m_1", kind="remark", audience=audience, text="Released remark.", policy_hash=POLICY),
        ),
        marks=("Reference model, not for clinical use.",),
        policy_hash=POLICY,
        policy_name="default",
    )
    return RenderTask(
        study_id="S-20260101-AAAAAAAA",
        version=2,
        study_instance_uid="1.2.3",
        closed_reason="No image came for 30 s.",
        source="xray",
        facts=StudyFacts(
            source="xray",
            modalities=("DX",),
            body_parts=("CHEST", "SECRET_CHEST"),
            views=("PA", "PERSON PA"),
            study_description="Thorax of Secret Person",
            series_descriptions=("Secret Person pa",),
            stations=("ROOM-SECRET",),
            slices=1,
        ),
        identity=IDENTITY,
        received_at=1_700_000_000.0,
        created_at=1_700_000_060.0,
        images=(RenderImage(path="/stored/object", sha256=SHA, header=header, heatmap_caption="plugin caption"),),
        findings=(finding("pneumonia", 0.91), finding("cardiomegaly", 0.07)),
        verdict=verdict,
        models=(ModelRef(plugin="xray", name="reference", version="1", digest="c" * 64),),
        plugin_labels=("xray 0.1.0",),
        institution="Clinic",
        language="en",
        output_directory="/stored/job",
        software="clinic-ai 0.1.0",
    )


def test_answers_say_what_they_are_about_in_the_words_that_were_released() -> None:
    origins = tuple(
        AnswerOrigin(
            statement_id=key,
            question="Is it sharp?",
            instance_sha256=SHA,
            frame=11,
            category="femur",
            adapter="femur",
            confidence=0.6,
        )
        for key in ("a_1", "a_2")
    )
    plain = task()
    said = Released(
        statement_id="a_2", kind="answer", audience=Audience.CLINICIAN, text="Is it sharp? Yes.", policy_hash=POLICY
    )
    verdict = plain.verdict.model_copy(update={"released": (*plain.verdict.released, said)})
    picture = plain.images[0].header.model_copy(update={"rows": 8, "columns": 8, "frames": 40})
    images = (plain.images[0].model_copy(update={"header": picture}),)

    made = build_document(
        plain.model_copy(update={"answers": origins, "verdict": verdict, "images": images}), files=(), omissions=()
    )

    [answer] = made.answers
    assert (answer.statement_id, answer.text, answer.image, answer.frame) == ("a_2", "Is it sharp? Yes.", 1, 12)
    assert (answer.category, answer.adapter, answer.confidence) == ("femur", "femur", 0.6)
    assert "a_2" in {statement.statement_id for statement in made.statements}


@pytest.fixture
def document() -> dict[str, object]:
    files = (StoredFile(name="report.pdf", sha256="d" * 64, size_bytes=10, media_type="application/pdf"),)
    loaded: dict[str, object] = json.loads(result_document(task(), files=files, omissions=("No heat map.",)))
    return loaded


def test_the_published_schema_is_the_one_the_code_makes() -> None:
    how = "run: python -m clinic_ai.results.document > docs/result.schema.json"
    assert SCHEMA.read_text(encoding="utf-8") == schema(), how


def test_the_document_follows_the_published_schema(document: dict[str, object]) -> None:
    published = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(published)
    jsonschema.validate(document, published)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document | {"unknown": 1}, published)


def test_only_released_findings_have_numbers(document: dict[str, object]) -> None:
    (found,) = document["findings"]
    assert (found["condition"], found["probability"], found["label"]) == ("pneumonia", 0.91, "Pneumonia")
    assert found["code"] == {"scheme": "SCT", "code": "233604007", "meaning": "Pneumonia"}
    assert "0.07" not in json.dumps(document)


def test_words_are_those_released_and_nothing_of_the_plugin(document: dict[str, object]) -> None:
    assert [(s["kind"], s["text"]) for s in document["statements"]] == [
        ("finding", "Released of the first."),
        ("remark", "Released remark."),
    ]
    text = json.dumps(document)
    assert "plugin label" not in text
    assert "plugin caption" not in text


def test_nobody_is_identified(document: dict[str, object]) -> None:
    text = json.dumps(document)
    for secret in ("PAT-4711", "Secret", "SECRET", "19440102", "ACC-0815", "/stored"):
        assert secret not in text
    study = document["study"]
    assert isinstance(study, dict)
    assert (study["facts"]["body_parts"], study["facts"]["views"]) == (["CHEST"], ["PA"])


def test_everything_that_traces_a_result_is_there(document: dict[str, object]) -> None:
    assert document["status"] == "preliminary"
    assert document["models"][0]["digest"] == "c" * 64
    assert document["guard"]["policy_hash"] == POLICY
    assert document["guard"]["decisions"][0]["rule"] == "wording"
    assert document["guard"]["marks"] == ["Reference model, not for clinical use."]
    assert document["originals"][0]["sha256"] == SHA
    assert document["files"][0]["sha256"] == "d" * 64
    assert document["omissions"] == ["No heat map."]
    assert document["study"]["closed_reason"] == "No image came for 30 s."


def test_a_patient_gets_words_without_numbers() -> None:
    document = json.loads(result_document(task(Audience.PATIENT), files=(), omissions=()))
    assert document["findings"] == []
    assert len(document["statements"]) == 2


def test_measures_stand_beside_the_finding_whose_words_were_released() -> None:
    masks = (
        Mask(name="pneumonia", side="left", level="left lower lobe", count=2, size_mm=31.5, volume_mm3=9100),
        Mask(name="pneumonia", side="right", level="WORDS OF A PLUGIN", size_mm=12, size_is="depth"),
        Mask(name="cardiomegaly", size_mm=150),
        Mask(name="lung", role="anatomy", volume_mm3=1e6),
    )
    made = task().model_copy(update={"outlines": (Outlines(plugin="xray", findings=(0, 1), masks=masks),)})
    (found,) = build_document(made, files=(), omissions=()).findings
    assert [one.model_dump() for one in found.measures] == [
        {
            "size_mm": 31.5,
            "size_is": "diameter",
            "volume_mm3": 9100,
            "pieces": 2,
            "side": "left",
            "place": "Left lower lobe",
        },
        {"size_mm": 12, "size_is": "depth", "volume_mm3": None, "pieces": 1, "side": "right", "place": ""},
    ]
    assert "WORDS OF A PLUGIN" not in result_document(made, files=(), omissions=()).decode()
