"""What was measured on masks, in the structured report; and a written report in its sections."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
import pytest
from outlined import CT_MODEL, all_released, ball, ct_slices, found, outlines, segmentation, thorax
from pydicom.dataset import Dataset
from rendering import MARK, POLICY, assert_valid_dicom, pdf_text, read_strictly, sr_texts, verdict

from clinic_ai.domain import Mask, Presence, Released
from clinic_ai.tasks import RenderImage, RenderResult

SHAPE = (6, 24, 30)
Render = Callable[..., RenderResult]
NODULE = Mask(name="lung_nodule", side="right", level="right upper lobe", count=2, size_mm=12.34, volume_mm3=960.4)
EFFUSION = Mask(
    name="pleural_effusion",
    side="bilateral",
    level="UNGUARDED PLACE",
    size_mm=84.0,
    size_is="depth",
    volume_mm3=210_000,
)
MANY = (
    "lung_nodule", "pleural_effusion", "pericardial_effusion", "consolidation", "ground_glass_opacity",
    "pneumothorax", "atelectasis", "emphysema", "cardiomegaly", "pneumonia",
)  # fmt: skip
SECTIONS = (
    ("s_1", "findings", "There is a nodule in the right upper lobe."),
    ("s_2", "findings", "There is fluid on both sides."),
    ("s_3", "impression", "Nodule and effusions."),
    ("s_4", "recommendations", "Compare with earlier images."),
)


@pytest.fixture
def images(tmp_path: Path) -> tuple[RenderImage, ...]:
    return ct_slices(tmp_path, thorax(*SHAPE))


def items(dataset: Dataset, code: str) -> Iterator[Dataset]:
    """Yield the items of a content tree whose concept has this code."""
    for item in dataset.get("ContentSequence", []):
        if item.get("ConceptNameCodeSequence") and item.ConceptNameCodeSequence[0].CodeValue == code:
            yield item
        yield from items(item, code)


def number(group: Dataset, code: str) -> tuple[float, str]:
    (item,) = items(group, code)
    measured = item.MeasuredValueSequence[0]
    return float(measured.NumericValue), measured.MeasurementUnitsCodeSequence[0].CodeValue


def test_sizes_sites_and_segments_stand_with_their_finding(
    render: Render, directory: Path, tmp_path: Path, images: tuple[RenderImage, ...]
) -> None:
    findings = (found(images[3], "lung_nodule"), found(images[1], "pleural_effusion"), found(images[1], "pneumonia"))
    stored = segmentation(tmp_path, images, {"lung_nodule": ball(SHAPE, (0.5, 0.5, 0.3), 6)})
    render(
        *images,
        findings=findings,
        verdict=all_released(findings),
        models=(CT_MODEL,),
        outlines=outlines(3, stored, (NODULE, EFFUSION)),
    )

    report = pydicom.dcmread(directory / "report.sr.dcm")
    nodule, effusion, pneumonia = items(report, "125007")  # Measurement Group
    assert number(nodule, "103339001") == (12.3, "mm")
    assert number(nodule, "118565006") == (960.4, "mm3")
    assert number(nodule, "122157") == (0.93, "1")
    (segment,) = items(nodule, "121191")  # Referenced Segment
    reference = segment.ReferencedSOPSequence[0]
    made = pydicom.dcmread(directory / "segmentation.seg.dcm")
    assert (reference.ReferencedSOPInstanceUID, reference.ReferencedSegmentNumber) == (made.SOPInstanceUID, 1)
    (site,) = items(nodule, "363698007")  # Finding Site
    assert site.ConceptCodeSequence[0].CodeValue == "45653009"
    assert next(items(site, "272741003")).ConceptCodeSequence[0].CodeMeaning == "Right"
    assert "longest diameter 12 mm, volume 960 mm³, right upper lobe, 2 pieces" in " ".join(sr_texts(nodule))
    # Without a segmentation and without a place that has a code, the side stands for itself.
    assert number(effusion, "118565006") == (210_000.0, "mm3")
    assert number(effusion, "131197000") == (84.0, "mm")
    assert not list(items(effusion, "103339001"))
    assert "depth 84 mm" in " ".join(sr_texts(effusion))
    assert not list(items(effusion, "121191"))
    assert next(items(effusion, "272741003")).ConceptCodeSequence[0].CodeMeaning == "Bilateral"
    assert not list(items(pneumonia, "118565006"))
    assert "UNGUARDED" not in str(report)
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert made.SOPInstanceUID in {r.ReferencedSOPInstanceUID for s in evidence for r in s.ReferencedSOPSequence}
    read_strictly(directory / "report.sr.dcm")
    assert_valid_dicom(directory / "report.sr.dcm")


def test_nothing_is_measured_of_what_is_absent_or_withheld(
    render: Render, directory: Path, images: tuple[RenderImage, ...]
) -> None:
    findings = (found(images[3], "lung_nodule", Presence.ABSENT), found(images[1], "pleural_effusion"))
    render(
        *images,
        findings=findings,
        verdict=verdict(("f_1", "No nodule.")),
        outlines=outlines(2, None, (NODULE, EFFUSION)),
    )
    report = pydicom.dcmread(directory / "report.sr.dcm")
    assert len(list(items(report, "125007"))) == 1
    assert not list(items(report, "118565006"))


def written(note: str = "") -> tuple[Released, ...]:
    return tuple(
        Released(
            statement_id=key,
            audience="clinician",
            kind="report",
            section=section,
            text=text,
            annotations=(note,) if note and key == "s_3" else (),
            policy_hash=POLICY,
        )
        for key, section, text in SECTIONS
    )


def test_a_written_report_keeps_its_sections(render: Render, directory: Path, images: tuple[RenderImage, ...]) -> None:
    findings = (found(images[3], "lung_nodule"),)
    said = all_released(findings)
    released = (*written("Look at it."), *said.released)
    render(*images, findings=findings, verdict=said.model_copy(update={"released": released}))

    page = pdf_text(directory)
    order = [page.index(words) for words in (
        MARK, "Findings", SECTIONS[0][2], SECTIONS[1][2], "Impression", SECTIONS[2][2], "Look at it.",
        "Recommendations", SECTIONS[3][2],
    )]  # fmt: skip
    assert order == sorted(order)
    assert page.count(SECTIONS[0][2]) == 1
    report = pydicom.dcmread(directory / "report.sr.dcm")
    for heading, each, expected in (
        ("121070", "121071", [SECTIONS[0][2], SECTIONS[1][2]]),
        ("121072", "121073", [SECTIONS[2][2]]),
        ("121074", "121075", [SECTIONS[3][2]]),
    ):
        (section,) = items(report, heading)
        assert [item.TextValue for item in items(section, each)] == expected
    assert "Look at it." in list(sr_texts(report))
    assert_valid_dicom(directory / "report.sr.dcm")


def test_many_findings_have_a_page_of_their_own_with_its_number(
    render: Render, directory: Path, tmp_path: Path, images: tuple[RenderImage, ...]
) -> None:
    findings = tuple(found(images[3], name) for name in MANY)
    stored = segmentation(tmp_path, images, {"lung_nodule": ball(SHAPE, (0.5, 0.5, 0.3), 6)})
    said = all_released(findings)
    render(
        *images,
        findings=findings,
        verdict=said.model_copy(update={"released": (*written(), *said.released)}),
        outlines=outlines(3, stored, (NODULE,)),
    )
    page = pdf_text(directory)
    assert page.count("Each condition by itself") == 1
    order = [page.index(words) for words in ("Key slices", "Page 1 of 2", "Each condition by itself", "Page 2 of 2")]
    assert order == sorted(order)
