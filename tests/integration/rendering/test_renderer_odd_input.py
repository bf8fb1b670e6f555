"""The real renderer child: hostile words, broken images and headers, and pydicom's own files."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_charset_files, get_testdata_file
from rendering import (
    assert_valid_dicom,
    finding,
    header_of,
    image_at,
    names,
    pdf_text,
    phantom,
    read_strictly,
    verdict,
    wrap_as_dx,
)

from clinic_ai.domain import (
    FileKind,
    InstanceHeader,
    PatientIdentity,
    StudyFacts,
)
from clinic_ai.ml import report_text
from clinic_ai.processes import Child
from clinic_ai.tasks import RenderImage, RenderResult

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


def test_a_study_whose_decoding_kills_still_gets_its_report(
    render: Callable[..., RenderResult], png: RenderImage, directory: Path
) -> None:
    result = render(png, decode=False)
    assert names(result) == ["report.pdf"]
    assert any("not shown" in omission for omission in result.omissions)
