"""What a signer said, read back from the PDF, the structured report and ``result.json``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from review_desk import Desk, Report, review_desk

from clinic_ai.domain import ReportSentence
from clinic_ai.domain.reviews import ReviewDecision
from clinic_ai.errors import Conflict, InputError, NotFound
from clinic_ai.results.reviewing import Order
from clinic_ai.store import artefacts, reviews

MINE = "The lungs are clear."


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with review_desk(tmp_path) as made:
        yield made


def decisions(desk: Desk) -> int:
    with desk.database.read() as c:
        return int(c.exec_driver_sql("SELECT count(*) FROM reviews").scalar() or 0)


def test_a_mistyped_id_is_refused_and_the_known_ones_are_named(desk: Desk) -> None:
    artefact = desk.add_report(remarks=("One view was sent.",))
    order: Order = desk.order(artefact, {"f_9": MINE, "m_1": "One view was sent."})
    with pytest.raises(InputError, match=r"no statement \[f_9\]; it has \[f_1\], \[m_1\]") as refused:
        desk.decide(order)
    assert "[new]" in refused.value.remedy
    assert MINE not in refused.value.message
    assert decisions(desk) == 0


def test_whatever_is_signed_stands_in_pdf_sr_and_json(desk: Desk) -> None:
    artefact = desk.add_report(remarks=("One view was sent.",))
    said = {"f_1": "Pneumonia may well be there.", "m_1": "Two views were sent.", "n_1": "Compare with last year."}
    report = desk.sign(desk.order(artefact, said))
    for sentence in said.values():
        assert sentence in report.pdf
        assert sentence in report.texts
    assert [(s["statement_id"], s["kind"], s["text"]) for s in report.result["statements"]] == [
        ("f_1", "finding", said["f_1"]),
        ("m_1", "remark", said["m_1"]),
        ("n_1", "notice", said["n_1"]),
    ]


def test_a_correction_stands_beside_a_probability_that_stays_the_models(desk: Desk) -> None:
    report = desk.sign(desk.order(desk.add_report(), corrections={"pneumonia": "absent"}))
    assert "98 % above threshold corrected by the signer: absent 47 %" in report.pdf
    assert "below threshold" not in report.pdf
    assert "Presence corrected by the signer: absent; the software: present." in report.texts
    [found] = report.result["findings"]
    assert (found["presence"], found["corrected"], found["probability"]) == ("absent", True, 0.98)
    assert "Pneumonia is absent." in report.pdf


def test_a_correction_that_agrees_is_none(desk: Desk) -> None:
    order = desk.order(desk.add_report(), {"f_1": "There is pneumonia."}, {"pneumonia": "present"})
    report = desk.sign(order)
    assert "corrected" not in report.pdf
    [found] = report.result["findings"]
    assert (found["presence"], found["corrected"]) == ("present", False)


def test_the_note_beside_the_signers_words_is_true(desk: Desk) -> None:
    report = desk.sign(desk.order(desk.add_report(), corrections={"pneumonia": "absent"}))
    assert "In the signer's own words" in report.pdf
    assert "worded again" not in report.pdf + " ".join(report.texts) + str(report.result)


def test_a_second_decision_is_refused_in_words_that_fit_the_first(desk: Desk) -> None:
    rejected, accepted = desk.add_report(), desk.add_report()
    for artefact, first in ((rejected, ReviewDecision.REJECT), (accepted, ReviewDecision.ACCEPT)):
        later = desk.order(artefact, {"f_1": MINE})
        desk.decide(desk.order(artefact, decision=first))
        with pytest.raises(Conflict) as refused:
            desk.decide(later)
        if first is ReviewDecision.REJECT:
            assert "decided already: rejected by" in refused.value.message
            assert "no signed artefact follows" in refused.value.remedy
        else:
            assert "decided already: accepted by" in refused.value.message
            assert "Amend the signed artefact" in refused.value.remedy


def test_what_is_not_there_is_answered_with_what_lists_it(desk: Desk) -> None:
    artefact = desk.add_report()
    with pytest.raises(InputError, match=r"no condition pnuemonia\. Is pneumonia meant\?") as refused:
        desk.decide(desk.order(artefact, corrections={"pnuemonia": "absent"}))
    assert "review conditions" in refused.value.remedy
    with pytest.raises(InputError, match=r"no condition xyzzy\.$"):
        desk.decide(desk.order(artefact, corrections={"xyzzy": "absent"}))
    with desk.database.read() as c, pytest.raises(NotFound) as missing:
        reviews.get_review(c, "W-20261121-7F3K9QXB")
    assert "review show" in missing.value.remedy


def test_a_finding_that_the_signer_leaves_out_is_told_of_in_sentences_that_are_true(desk: Desk) -> None:
    report = desk.sign(desk.order(desk.add_report(), {"n_1": MINE}))
    assert report.result["findings"] == []
    assert MINE in report.pdf
    assert "This report states none of the models' findings." in report.pdf
    assert "A model's positive finding is not mentioned in the text of this report" in report.pdf
    assert "table of findings" not in report.pdf
    assert "was released" not in report.pdf


REPORT = (
    ReportSentence(section="findings", text="The lungs show pneumonia.", conditions=("pneumonia",), findings=(0,)),
    ReportSentence(section="impression", text="Pneumonia.", conditions=("pneumonia",), findings=(0,)),
    ReportSentence(section="findings", text="The heart is of normal size."),
)


def sections(report: Report) -> list[tuple[str, str | None]]:
    return [(one["statement_id"], one["section"]) for one in report.result["statements"]]


def test_a_written_report_goes_out_in_the_order_of_its_sections(desk: Desk) -> None:
    report = desk.read(desk.add_report(report=REPORT, remarks=("One view was sent.",)))
    assert sections(report) == [
        ("s_1", "findings"),
        ("s_2", "findings"),
        ("s_3", "impression"),
        ("f_1", None),
        ("m_1", None),
    ]
    order = ["Findings The lungs show pneumonia.", "The heart is of normal size.", "Impression Pneumonia."]
    places = [report.pdf.index(words) for words in order]
    assert places == sorted(places)


def test_an_amended_report_keeps_its_sections(desk: Desk) -> None:
    artefact = desk.add_report(report=REPORT)
    said = {
        "s_1": "The right lung shows pneumonia.",
        "n_1": "The left lung is clear.",
        "s_3": "Pneumonia on the right.",
        "f_1": "The image most likely shows pneumonia.",
        "n_2": "Seen with Dr. Example.",
    }
    report = desk.sign(desk.order(artefact, said))
    assert sections(report) == [
        ("s_1", "findings"),
        ("n_1", "findings"),
        ("s_3", "impression"),
        ("f_1", None),
        ("n_2", None),
    ]
    assert "The heart is of normal size." not in report.pdf
    again = desk.sign(desk.order(desk.newest(), {**said, "s_3": "Pneumonia of the right lung."}))
    assert sections(again)[:3] == sections(report)[:3], "signed again, it still has them"


def test_what_a_correction_adds_is_in_no_section(desk: Desk) -> None:
    artefact = desk.add_report({"condition": "pneumonia"}, report=REPORT)
    report = desk.sign(desk.order(artefact, corrections={"cardiomegaly": "present"}))
    (added,) = [one for one in report.result["statements"] if one["statement_id"] == "n_1"]
    assert (added["text"], added["section"]) == ("Cardiomegaly is present.", None)


def test_outlines_come_from_the_store_and_follow_their_finding(desk: Desk) -> None:
    """A radiograph says not where it lies, so no segmentation object is made of it; its picture is."""
    mask = np.zeros((96, 80), bool)
    mask[40:50, 20:30] = True
    artefact = desk.add_report(masks={"pneumonia": mask})
    report = desk.read(artefact)
    names = {file["name"] for file in report.result["files"]}
    assert "key-slice-a.png" in names
    assert "A Pneumonia Image 1" in report.pdf
    assert any("does not say where it lies" in omission for omission in report.result["omissions"])

    with desk.database.read() as c:
        assert reviews.sign_off_of(c, artefacts.get_artefact(c, artefact)) is None
    signed = desk.sign(desk.order(artefact, corrections={"pneumonia": "absent"}))
    with desk.database.read() as c:
        sign = reviews.sign_off_of(c, artefacts.get_artefact(c, desk.newest()))
    assert sign is not None
    assert [(one.condition, one.presence.value) for one in sign.corrections] == [("pneumonia", "absent")]
    assert not [file["name"] for file in signed.result["files"] if "key-slice" in file["name"]]
