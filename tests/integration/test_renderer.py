"""The real renderer child: pictures, PDF, SR and SC of phantoms, of pydicom's own files, and of hostile words."""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import subprocess
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_charset_files, get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from pypdf import PdfReader

from clinic_ai.confinement import Confinement
from clinic_ai.contract import RenderImage, RenderResult, RenderTask
from clinic_ai.domain import (
    Audience,
    Decision,
    FileKind,
    Finding,
    GuardAction,
    GuardVerdict,
    InstanceHeader,
    ModelRef,
    PatientIdentity,
    Presence,
    Released,
    StudyFacts,
    ValidationFigures,
)
from clinic_ai.ml import report_text
from clinic_ai.processes import Child, ChildSpec
from clinic_ai.results.codes import finding_code

POLICY = "b" * 64
STUDY_UID = "1.2.826.0.1.3680043.8.498.1"
MARK = "Reference model, not for clinical use."
FIGURES = ValidationFigures(dataset="d", positives=5, negatives=9, auroc=0.91, auroc_low=0.86, auroc_high=0.94)
MODEL = ModelRef(plugin="xray", name="mobilenet", version="1.0", digest="c" * 64)
HOSTILE = [
    '#panic() $ * @ " \' \\ ` ] [ } { // /* */ #import "/etc/passwd" <b>&amp;',
    "#sys.inputs",
    "عبد الله מרדכי",
    "李小龙 王秀英",
    "😀🩻👩‍⚕️",
    "\u202eesrever\u202c \u0000\x1b[31m\r\n\t\u2028",
    "n" * 500,
    "\ud7ff\ue000\uffff\U0010ffff ﷺ",
    "",
]


# ---------------------------------------------------------------- what is rendered


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    confinement = Confinement(data=3 << 30, file_size=1 << 30)
    renderer = Child(ChildSpec(kind="renderer", name="renderer", confinement=confinement))
    yield renderer
    renderer.close()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "job"
    made.mkdir()
    return made


@pytest.fixture
def render(child: Child, directory: Path) -> Callable[..., RenderResult]:
    def call(*images: RenderImage, **changes: object) -> RenderResult:
        asked = task(directory, images, **changes)
        return child.call("render", asked, RenderResult, timeout_s=60)

    return call


def task(directory: Path, images: tuple[RenderImage, ...], **changes: object) -> RenderTask:
    values: dict[str, object] = {
        "study_id": "S-20260101-AAAAAAAA",
        "version": 1,
        "study_instance_uid": STUDY_UID,
        "closed_reason": "No image came for 30 s.",
        "source": "xray",
        "facts": StudyFacts(source="xray", modalities=("DX",), body_parts=("CHEST",), slices=len(images)),
        "identity": PatientIdentity(patient_id="P-1", patient_name="Doe^Jane", birth_date="19700131", sex="F"),
        "received_at": 1_700_000_000.0,
        "created_at": 1_700_000_060.0,
        "images": images,
        "findings": (),
        "verdict": verdict(),
        "models": (MODEL,),
        "plugin_labels": ("xray 0.1.0",),
        "institution": "Example Clinic",
        "language": "en",
        "output_directory": str(directory),
        "software": "clinic-ai 0.1.0",
    }
    return RenderTask.model_validate(values | changes)


def verdict(*released: tuple[str, str], annotations: tuple[str, ...] = (), **changes: object) -> GuardVerdict:
    said = tuple(
        Released(statement_id=key, audience="clinician", text=text, annotations=annotations, policy_hash=POLICY)
        for key, text in released
    )
    values: dict[str, object] = {
        "audience": Audience.CLINICIAN,
        "action": GuardAction.ALLOW,
        "decisions": (),
        "released": said,
        "marks": (MARK,),
        "policy_hash": POLICY,
        "policy_name": "default",
    }
    return GuardVerdict.model_validate(values | changes)


def finding(image: RenderImage, condition: str = "pneumonia", probability: float = 0.83, **more: object) -> Finding:
    values: dict[str, object] = {
        "condition": condition,
        "label": "UNGUARDED LABEL",
        "probability": probability,
        "threshold": 0.42,
        "presence": Presence.PRESENT,
        "instance_sha256": image.sha256,
        "validation": FIGURES,
        "model": "main",
    }
    return Finding.model_validate(values | more)


def phantom(rows: int = 96, columns: int = 80) -> np.ndarray:
    """Two dark ellipses in a bright body, uint8 (rows, columns)."""
    y, x = np.mgrid[0:rows, 0:columns]
    y, x = y / rows - 0.5, abs(x / columns - 0.5)
    lungs = ((y / 0.35) ** 2 + ((x - 0.2) / 0.15) ** 2) < 1
    return np.where(lungs, 60, 190).astype(np.uint8)


def image_at(path: Path, header: InstanceHeader, **more: object) -> RenderImage:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return RenderImage.model_validate({"path": str(path), "sha256": digest, "header": header} | more)


@pytest.fixture
def png(tmp_path: Path) -> RenderImage:
    path = tmp_path / "stored-png"
    Image.fromarray(phantom()).save(path, format="PNG")
    return image_at(path, InstanceHeader(kind=FileKind.PNG, rows=96, columns=80))


@pytest.fixture
def mapped(png: RenderImage, tmp_path: Path) -> RenderImage:
    heat = tmp_path / "stored-heat"
    Image.fromarray(np.linspace(0, 255, 256).reshape(16, 16).astype(np.uint8)).save(heat, format="PNG")
    return png.model_copy(
        update={"heatmap_path": str(heat), "heatmap_caption": "UNGUARDED CAPTION", "extent": (0.1, 0.1, 0.9, 0.9)}
    )


def header_of(path: Path) -> InstanceHeader:
    """Return the header as a parser would, for files that pydicom can read."""
    dataset = pydicom.dcmread(path, force=True, stop_before_pixels=True)

    def text(keyword: str) -> str:
        value = dataset.get(keyword)
        return "" if value is None else str(value)

    return InstanceHeader(
        kind=FileKind.DICOM,
        sop_class_uid=text("SOPClassUID"),
        sop_instance_uid=text("SOPInstanceUID"),
        study_instance_uid=text("StudyInstanceUID"),
        series_instance_uid=text("SeriesInstanceUID"),
        modality=text("Modality"),
        study_date=text("StudyDate"),
        rows=int(dataset.get("Rows") or 0),
        columns=int(dataset.get("Columns") or 0),
    )


@pytest.fixture
def dx(tmp_path: Path) -> RenderImage:
    return image_at(wrap_as_dx(tmp_path / "stored-dx"), header_of(tmp_path / "stored-dx"))


def wrap_as_dx(path: Path, instance: int = 1) -> Path:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    dataset.SOPInstanceUID = f"{STUDY_UID}.1.{instance}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY_UID, f"{STUDY_UID}.1"
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20260101", "101112", "77"
    dataset.ReferringPhysicianName = "Refers^Anna"
    dataset.Modality = "DX"
    pixels = phantom()
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = pixels.tobytes()
    dataset.save_as(path, enforce_file_format=True)
    return path


# ---------------------------------------------------------------- how it is read back


def names(result: RenderResult) -> list[str]:
    return [file.name for file in result.files]


def pdf_text(directory: Path) -> str:
    pages = PdfReader(directory / "report.pdf").pages
    return " ".join(" ".join(page.extract_text() for page in pages).split())


def sr_texts(dataset: Dataset) -> Iterator[str]:
    for item in dataset.get("ContentSequence", []):
        if item.ValueType == "TEXT":
            yield item.TextValue
        yield from sr_texts(item)


def assert_valid_dicom(path: Path) -> None:
    for tool in ("dciodvfy", "dsrdump"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed (Debian: dicom3tools, dcmtk)")
    checked = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
    assert "Error" not in checked.stdout + checked.stderr
    if path.name.endswith(".sr.dcm"):
        dumped = subprocess.run(["dsrdump", str(path)], capture_output=True, text=True, check=False)
        assert dumped.returncode == 0
        assert not re.search(r"^[EF]: ", dumped.stdout + dumped.stderr, re.MULTILINE)


def read_strictly(path: Path) -> None:
    """Read every value, nested ones too; pydicom raises for one that its VR does not allow."""
    mode = pydicom.config.settings.reading_validation_mode
    pydicom.config.settings.reading_validation_mode = pydicom.config.RAISE
    try:
        pydicom.dcmread(path).walk(lambda dataset, element: element.value)
    finally:
        pydicom.config.settings.reading_validation_mode = mode


# ---------------------------------------------------------------- the whole set


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
        Example Clinic Doe, Jane P-1 1970-01-31 F DX CHEST 2023-11-14 22:13 UTC 22:14 No image came for 30 s."""
    allowed = set(" ".join([*known, constants]).split())
    assert set(pdf_text(directory).split()) <= allowed


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


# ---------------------------------------------------------------- hostile and odd


@pytest.mark.parametrize("words", HOSTILE, ids=range(len(HOSTILE)))
def test_no_text_breaks_or_enters_the_report(
    render: Callable[..., RenderResult], png: RenderImage, directory: Path, words: str
) -> None:
    identity = PatientIdentity(
        patient_id=words, patient_name=words, birth_date=words, sex=words, accession_number=words
    )
    result = render(
        png,
        identity=identity,
        institution=words,
        closed_reason=words,
        software=f"clinic-ai {words}",
        plugin_labels=(words,),
        facts=StudyFacts(modalities=(words,), body_parts=(words,)),
        findings=(finding(png),),
        verdict=verdict(("f_1", words), ("m_1", words), annotations=(words,), marks=(words,), policy_name=words),
    )
    assert {"report.pdf", "report.sr.dcm", "scan.sc.dcm"} <= set(names(result))
    text = pdf_text(directory)
    assert report_text.PRELIMINARY in text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\u202a-\u202e]", text)
    for name in ("report.sr.dcm", "scan.sc.dcm"):
        read_strictly(directory / name)
        if words.isascii():  # dciodvfy counts bytes of UTF-8 where the standard counts characters
            assert_valid_dicom(directory / name)


def test_markup_stands_on_the_page_as_it_was_written(
    render: Callable[..., RenderResult], png: RenderImage, directory: Path
) -> None:
    said = '#panic("x") and *bold* and $1+1$ and @ref'
    render(png, verdict=verdict(("m_1", said)))
    assert said in pdf_text(directory).replace("“", '"').replace("”", '"')


def test_characters_without_a_glyph_are_boxed_in_the_pdf_and_whole_in_the_sr(
    render: Callable[..., RenderResult], dx: RenderImage, directory: Path
) -> None:
    render(dx, identity=PatientIdentity(patient_name="Wang^XiaoDong=王^小东"))
    text = pdf_text(directory)
    assert "Wang, XiaoDong (□, □□)" in text
    assert report_text.GLYPHS_REPLACED in text
    assert str(pydicom.dcmread(directory / "report.sr.dcm").PatientName) == "Wang^XiaoDong=王^小东"


def test_a_key_too_long_for_dicom_is_left_out_and_said(
    render: Callable[..., RenderResult], dx: RenderImage, directory: Path
) -> None:
    result = render(dx, identity=PatientIdentity(patient_id="7" * 65, accession_number="A" * 17))
    assert len(result.omissions) == 2
    report = pydicom.dcmread(directory / "report.sr.dcm")
    assert report.PatientID in ("", None)
    assert "7" * 63 + "…" in re.sub(r"[\s\u200b]", "", pdf_text(directory))


@pytest.mark.parametrize("sop_class", ["1.2.840.10008.5.1.4.1.1.6", "1.3.12.2.1107.5.9.1"], ids=["retired", "private"])
def test_a_source_of_an_unknown_sop_class_has_its_sr(
    render: Callable[..., RenderResult], dx: RenderImage, directory: Path, sop_class: str
) -> None:
    odd = dx.model_copy(update={"header": dx.header.model_copy(update={"sop_class_uid": sop_class})})
    result = render(odd, findings=(finding(odd),), verdict=verdict(("f_1", "Words.")))
    assert "report.sr.dcm" in names(result)
    report = pydicom.dcmread(directory / "report.sr.dcm")
    assert (report.StudyTime, report.PatientID) == ("101112", "P-1")
    assert_valid_dicom(directory / "report.sr.dcm")


def test_nobody_is_named_on_standard_error(child: Child, render: Callable[..., RenderResult], dx: RenderImage) -> None:
    render(dx, identity=PatientIdentity(patient_name="Mononymous", birth_date="soon", sex="?"))
    assert "Mononymous" not in child.output_tail()


@pytest.mark.parametrize(
    "broken",
    [
        {"sop_instance_uid": ""},
        {"sop_instance_uid": "../../etc/passwd"},
        {"series_instance_uid": "1.2..3"},
        {"study_instance_uid": "9.9.9"},
        {"sop_class_uid": "1." + "2" * 70},
    ],
    ids=str,
)
def test_a_source_without_usable_uids_costs_the_sr_and_not_the_report(
    render: Callable[..., RenderResult], dx: RenderImage, broken: dict[str, str]
) -> None:
    odd = dx.model_copy(update={"header": dx.header.model_copy(update=broken)})
    result = render(odd)
    assert names(result) == ["scan-1.png", "report.pdf"]
    assert any("structured report" in omission for omission in result.omissions)


def test_an_image_that_cannot_be_decoded_is_said_on_the_page(
    render: Callable[..., RenderResult], png: RenderImage, directory: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut"
    cut.write_bytes(Path(png.path).read_bytes()[:100])
    result = render(png.model_copy(update={"path": str(cut)}), verdict=verdict(("r_1", "It cannot be read.")))
    assert names(result) == ["report.pdf"]
    assert len(result.omissions) == 3
    assert report_text.NO_PICTURE in pdf_text(directory)
    assert "It cannot be read." in pdf_text(directory)


@pytest.mark.parametrize("kind", ["text", "link", "huge", "nothing"])
def test_a_heat_map_that_is_none_costs_only_itself(
    render: Callable[..., RenderResult], mapped: RenderImage, tmp_path: Path, kind: str
) -> None:
    bad = tmp_path / "bad"
    if kind == "text":
        bad.write_text("no picture")
    elif kind == "link":
        bad.symlink_to(tmp_path / "nowhere")
    elif kind == "huge":
        bad.write_bytes(png_of_size(60_000, 60_000))
    odd = mapped.model_copy(update={"heatmap_path": str(bad)})
    result = render(odd, findings=(finding(odd, heatmap="h.png"),), verdict=verdict(("f_1", "Words.")))
    assert names(result) == ["scan-1.png", "scan.sc.dcm", "report.sr.dcm", "report.pdf"]
    assert any("heat map" in omission for omission in result.omissions)


def png_of_size(rows: int, columns: int) -> bytes:
    """Return a PNG whose header announces a size that its data do not have."""
    stream = io.BytesIO()
    Image.new("L", (1, 1)).save(stream, format="PNG")
    data = bytearray(stream.getvalue())
    data[16:24] = columns.to_bytes(4, "big") + rows.to_bytes(4, "big")
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize("mode", ["L", "I;16", "RGB", "RGBA", "P", "LA", "1"])
def test_every_kind_of_png_becomes_a_valid_capture(
    render: Callable[..., RenderResult], tmp_path: Path, directory: Path, mode: str
) -> None:
    path = tmp_path / "stored"
    grey = Image.fromarray(phantom())
    picture = Image.fromarray(phantom().astype(np.uint16) * 257) if mode == "I;16" else grey.convert(mode)
    picture.save(path, format="PNG")
    result = render(image_at(path, InstanceHeader(kind=FileKind.PNG, rows=96, columns=80)))
    assert result.omissions == ()
    capture = pydicom.dcmread(directory / "scan.sc.dcm")
    assert capture.BitsAllocated == (16 if mode == "I;16" else 8)
    assert_valid_dicom(directory / "scan.sc.dcm")


BUNDLED = [
    "CT_small.dcm",
    "MR_small.dcm",
    "SC_rgb_rle_2frame.dcm",
    "JPGExtended.dcm",
    "MR_truncated.dcm",
    "693_J2KI.dcm",
    "examples_palette.dcm",
    "examples_ybr_color.dcm",
    "examples_overlay.dcm",
    "JPEG2000.dcm",
    "MR_small_RLE.dcm",
    "rtplan.dcm",
    "rtdose.dcm",
    "test-SR.dcm",
    "no_meta_group_length.dcm",
    "badVR.dcm",
    "chrH31.dcm",
    "chrArab.dcm",
    "nested_priv_SQ.dcm",
    "empty_charset_LEI.dcm",
]


@pytest.mark.parametrize("name", BUNDLED)
def test_pydicoms_own_files_give_a_report(render: Callable[..., RenderResult], directory: Path, name: str) -> None:
    found = get_testdata_file(name, download=False) or next(iter(get_charset_files(name)), None)
    if found is None:
        pytest.skip(f"this pydicom does not ship {name}")
    path = Path(str(found))
    header = header_of(path)
    image = image_at(path, header)
    result = render(image, study_instance_uid=header.study_instance_uid)
    assert "report.pdf" in names(result)
    assert ("report.sr.dcm" in names(result)) or any("structured report" in o for o in result.omissions)
    if "report.sr.dcm" in names(result):
        assert_valid_dicom(directory / "report.sr.dcm")


def test_of_many_images_the_first_are_shown_and_the_rest_counted(
    render: Callable[..., RenderResult], tmp_path: Path, directory: Path
) -> None:
    paths = [wrap_as_dx(tmp_path / f"stored-{number}", number) for number in range(1, 8)]
    result = render(*(image_at(path, header_of(path)) for path in paths))
    assert [n for n in names(result) if n.startswith("scan")] == [f"scan-{n}.png" for n in range(1, 5)]
    assert "Images not shown here: 3 more." in pdf_text(directory)
    report = pydicom.dcmread(directory / "report.sr.dcm")
    (series,) = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert len(series.ReferencedSOPSequence) == 7


def test_a_study_without_any_image_still_has_its_page(render: Callable[..., RenderResult], directory: Path) -> None:
    result = render(verdict=verdict(("r_1", "There is no image in it.")))
    assert names(result) == ["report.pdf"]
    assert "There is no image in it." in pdf_text(directory)
