"""What a signer said, read back from the PDF, the structured report and ``result.json``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from review_desk import Desk, review_desk

from clinic_ai.errors import InputError
from clinic_ai.results.reviewing import Order

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
