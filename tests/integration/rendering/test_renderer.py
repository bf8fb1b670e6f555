"""The real renderer child: a whole set of files, and in it only what the guard released."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pypdf import PdfReader
from rendering import (
    MARK,
    MODEL,
    POLICY,
    STUDY_UID,
    assert_valid_dicom,
    finding,
    names,
    pdf_text,
    phantom,
    sr_texts,
    verdict,
)

from clinic_ai.domain import (
    Audience,
    Decision,
    GuardAction,
    Presence,
)
from clinic_ai.ml import report_text
from clinic_ai.results.codes import finding_code
from clinic_ai.tasks import AnswerOrigin, RenderImage, RenderResult


def test_a_picture_comes_back_as_pictures_pdf_capture_and_sr(
    render: Callable[..., RenderResult], mapped: RenderImage, directory: Path
) -> None:
    result = render(mapped, findings=(finding(mapped, heatmap="own.png"),), verdict=verdict(("f_1", "Words.")))
    assert names(result) == ["scan-1.png", "overlay-1.png", "scan.sc.dcm", "report.sr.dcm", "report.pdf"]
    assert sorted(names(result)) == sorted(path.name for path in directory.iterdir())
    assert result.omissions == ()
    assert len(PdfReader(directory / "report.pdf").pages) == 1
    capture = pydicom.dcmread(directory / "scan.sc.dcm")
    assert np.array_equal(capture.pixel_array, phantom())
    report = pydicom.dcmread(directory / "report.sr.dcm")
    (evidence,) = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert evidence.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == capture.SOPInstanceUID
    assert report.StudyInstanceUID == capture.StudyInstanceUID == STUDY_UID
    assert report.SeriesInstanceUID != capture.SeriesInstanceUID


def test_the_dicom_objects_are_valid(render: Callable[..., RenderResult], mapped: RenderImage, directory: Path) -> None:
    render(mapped, findings=(finding(mapped, heatmap="own.png"),), verdict=verdict(("f_1", "Words."), ("m_1", "More.")))
    assert_valid_dicom(directory / "scan.sc.dcm")
    assert_valid_dicom(directory / "report.sr.dcm")


@pytest.mark.parametrize("part", ["CHEST", "HAND", ""])
def test_a_capture_is_valid_whether_its_body_part_has_sides_or_not(
    render: Callable[..., RenderResult], png: RenderImage, directory: Path, part: str
) -> None:
    render(png.model_copy(update={"header": png.header.model_copy(update={"body_part": part})}))
    assert_valid_dicom(directory / "scan.sc.dcm")


def test_an_sr_of_a_dicom_source_belongs_to_its_patient_and_study(
    render: Callable[..., RenderResult], dx: RenderImage, directory: Path
) -> None:
    found = (finding(dx), finding(dx, "cardiomegaly", 0.04, presence=Presence.ABSENT))
    result = render(dx, findings=found, verdict=verdict(("f_1", "First."), ("f_2", "Second.")))
    assert names(result) == ["scan-1.png", "report.sr.dcm", "report.pdf"]
    report = pydicom.dcmread(directory / "report.sr.dcm")
    assert (report.PatientID, str(report.PatientName), report.StudyInstanceUID) == ("P-1", "Doe^Jane", STUDY_UID)
    assert (report.StudyDate, report.StudyTime, report.StudyID) == ("20260101", "101112", "77")
    assert str(report.ReferringPhysicianName) == "Refers^Anna"
    assert report.SeriesInstanceUID != dx.header.series_instance_uid
    assert (report.PreliminaryFlag, report.VerificationFlag, report.CompletionFlag) == (
        "PRELIMINARY",
        "UNVERIFIED",
        "PARTIAL",
    )
    assert_valid_dicom(directory / "report.sr.dcm")


def test_findings_are_coded_with_presence_probability_and_image(
    render: Callable[..., RenderResult], dx: RenderImage, directory: Path
) -> None:
    found = (finding(dx), finding(dx, "cardiomegaly", 0.04, presence=Presence.ABSENT))
    render(dx, findings=found, verdict=verdict(("f_1", "First."), ("f_2", "Second.")))
    tree = pydicom.dcmread(directory / "report.sr.dcm").ContentSequence
    (measured,) = [i for i in tree if i.ConceptNameCodeSequence[0].CodeMeaning == "Imaging Measurements"]
    seen = []
    for group in measured.ContentSequence:
        by_name = {i.ConceptNameCodeSequence[0].CodeMeaning: i for i in group.ContentSequence}
        seen.append(
            (
                by_name["Finding"].ConceptCodeSequence[0].CodeValue,
                by_name["Presence of property"].ConceptCodeSequence[0].CodeMeaning,
                float(by_name["Probability"].MeasuredValueSequence[0].NumericValue),
                by_name["Probability"].ConceptNameCodeSequence[0].CodeValue,
                by_name["Source of Measurement"].ReferencedSOPSequence[0].ReferencedSOPInstanceUID,
            )
        )
    source = dx.header.sop_instance_uid
    assert seen == [
        ("233604007", "Present", 0.83, "122157", source),
        ("8186001", "Absent", 0.04, "122157", source),
    ]


def test_the_same_report_again_is_the_same_bytes(
    render: Callable[..., RenderResult], mapped: RenderImage, directory: Path
) -> None:
    def once() -> dict[str, bytes]:
        render(mapped, findings=(finding(mapped, heatmap="h.png"),), verdict=verdict(("f_1", "Words.")))
        return {path.name: path.read_bytes() for path in directory.iterdir()}

    assert once() == once()


def test_the_pdf_says_what_it_conforms_to(
    render: Callable[..., RenderResult], png: RenderImage, directory: Path
) -> None:
    render(png)
    metadata = PdfReader(directory / "report.pdf").xmp_metadata
    assert metadata is not None
    raw = metadata.stream.get_data().decode()
    assert re.search(r"pdfaid:part\W+2\b", raw)
    assert re.search(r"pdfuaid:part\W+1\b", raw)


def test_the_page_names_study_patient_models_policy_and_numbers(
    render: Callable[..., RenderResult], mapped: RenderImage, directory: Path
) -> None:
    decisions = (
        Decision(statement_id="f_1", rule="wording", action=GuardAction.HEDGE, reason="It sounded too sure."),
        Decision(statement_id="f_2", rule="wording", action=GuardAction.HEDGE, reason="It sounded too sure."),
    )
    said = verdict(("f_1", "The image likely shows pneumonia."), decisions=decisions)
    render(mapped, findings=(finding(mapped, heatmap="h.png"),), verdict=said)
    text = pdf_text(directory)
    for words in (
        "Example Clinic",
        report_text.PRELIMINARY,
        MARK,
        "S-20260101-AAAAAAAA · version 1",
        "Doe, Jane",
        "P-1",
        "1970-01-31",
        "2023-11-14 22:13 UTC",
        "No image came for 30 s.",
        "83 %",
        "42 %",
        "0.91 (0.86–0.94)",
        "The image likely shows pneumonia.",
        "wording: reworded to the probability (2 statements) – It sounded too sure.",
        "xray/mobilenet/1.0 (cccccccccccc), reference model",
        "default (bbbbbbbbbbbb)",
        "Page 1 of 1",
        "clinic-ai 0.1.0",
        report_text.HEATMAP_NOTE,
    ):
        assert words in text


# ---------------------------------------------------------------- only what was released


def test_every_sentence_is_released_or_constant_or_metadata(
    render: Callable[..., RenderResult], mapped: RenderImage, directory: Path
) -> None:
    said = verdict(("f_1", "Alpha was released."), ("r_1", "Beta was released."), annotations=("Gamma was released.",))
    found = (finding(mapped, heatmap="h.png"), finding(mapped, "cardiomegaly", 0.1234))
    render(mapped, findings=found, verdict=said)
    known = [
        *("Alpha was released.", "Beta was released.", "Gamma was released.", MARK),
        *(report_text.PRELIMINARY, report_text.MACHINE_MADE, report_text.HEATMAP_NOTE, report_text.NO_RULE_FIRED),
        *(report_text.model_line(MODEL), "xray 0.1.0", "clinic-ai 0.1.0", "clinic-ai"),
    ]
    in_sr = [
        *(f"Policy default, sha256 {POLICY}", "Study S-20260101-AAAAAAAA, version 1", "Pneumonia 1"),
        *("xray/mobilenet", "1.0", f"manifest sha256 {MODEL.digest}", "threshold 0.4200"),
    ]
    texts = set(sr_texts(pydicom.dcmread(directory / "report.sr.dcm")))
    assert texts == set(known + in_sr) - {report_text.HEATMAP_NOTE}

    constants = """Image analysis report · study S-20260101-AAAAAAAA · version 1 Patient Patient ID Born Sex Accession
        Modality Body part Received Reported Closed because Image Image 1 Image 1, heat map: Pneumonia Findings
        Condition In words Probability Threshold Validation AUROC (95 % interval) above threshold What the guard did
        Made with Plugin Model Policy Page 1 of 1 • – · default (bbbbbbbbbbbb) 83 % 42 % 0.91 (0.86–0.94)
        sensitivity 0.80 (0.71–0.87) specificity 0.90
        Example Clinic Doe, Jane P-1 1970-01-31 F DX CHEST 2023-11-14 22:13 UTC 22:14 No image came for 30 s."""
    allowed = set(" ".join([*known, constants]).split())
    assert set(pdf_text(directory).split()) <= allowed


def test_answers_stand_beside_the_image_and_frame_they_are_about(
    render: Callable[..., RenderResult], png: RenderImage, directory: Path
) -> None:
    asked = {"a_1": "Is it sharp?", "a_2": "Is it dark?", "a_3": "Is it round?"}
    other = png.model_copy(update={"sha256": "d" * 64})
    origins = [
        AnswerOrigin(statement_id=key, question=question, instance_sha256=other.sha256, frame=11, confidence=0.6)
        for key, question in asked.items()
    ]
    origins[1] = origins[1].model_copy(update={"instance_sha256": png.sha256, "frame": None, "confidence": None})

    # The second was put in other words, the third was withheld.
    render(png, other, answers=origins, verdict=verdict(("a_1", "Is it sharp? Yes."), ("a_2", "In other words.")))

    text = pdf_text(directory)
    assert "Image 1 In other words. unknown Image 2, frame 12 Is it sharp? Yes. 60 %" in text
    assert "dark" not in text
    assert "round" not in text


def test_what_the_guard_withheld_leaves_no_trace(
    render: Callable[..., RenderResult], mapped: RenderImage, directory: Path
) -> None:
    decision = Decision(statement_id="f_1", rule="scope", action=GuardAction.HOLD, reason="Out of scope.")
    result = render(
        mapped,
        findings=(finding(mapped, probability=0.7654, heatmap="h.png"),),
        verdict=verdict(decisions=(decision,), action=GuardAction.HOLD),
    )
    assert "overlay-1.png" not in names(result)
    text = pdf_text(directory) + " ".join(sr_texts(pydicom.dcmread(directory / "report.sr.dcm")))
    report = (directory / "report.sr.dcm").read_bytes()
    assert finding_code("pneumonia").code.encode() not in report
    for words in ("neumonia", "77 %", "0.7654", "UNGUARDED"):
        assert words not in text
    assert report_text.NOTHING_RELEASED in text
    assert "scope: held back for review – Out of scope." in text
    assert_valid_dicom(directory / "report.sr.dcm")


def test_a_heat_map_that_may_belong_to_a_withheld_finding_is_not_shown(
    render: Callable[..., RenderResult], mapped: RenderImage
) -> None:
    found = (finding(mapped, heatmap="a.png"), finding(mapped, "cardiomegaly", heatmap="b.png"))
    assert "overlay-1.png" not in names(render(mapped, findings=found, verdict=verdict(("f_1", "Words."))))
    both = verdict(("f_1", "Words."), ("f_2", "More words."))
    assert "overlay-1.png" in names(render(mapped, findings=found, verdict=both))


def test_a_patients_page_has_words_and_no_numbers(
    render: Callable[..., RenderResult], png: RenderImage, directory: Path
) -> None:
    said = verdict(("f_1", "A template's words."), audience=Audience.PATIENT)
    render(png, findings=(finding(png),), verdict=said)
    text = pdf_text(directory)
    assert "A template's words." in text
    assert "83 %" not in text
    assert "AUROC" not in text
