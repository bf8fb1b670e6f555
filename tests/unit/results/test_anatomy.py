"""Every line of the table of anatomy, pinned: a change of a code has to be made twice, by intent."""

from __future__ import annotations

from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from clinic_ai.results.anatomy import place_code, table

PINNED = {
    "lung": ("39607008", "", "exact"),
    "left_lung": ("39607008", "left", "exact"),
    "right_lung": ("39607008", "right", "exact"),
    "left_upper_lobe": ("45653009", "left", "exact"),
    "left_lower_lobe": ("90572001", "left", "exact"),
    "right_upper_lobe": ("45653009", "right", "exact"),
    "right_middle_lobe": ("72481006", "", "exact"),
    "right_lower_lobe": ("90572001", "right", "exact"),
    "trachea": ("44567001", "", "exact"),
    "heart": ("80891009", "", "exact"),
    "aorta": ("15825003", "", "exact"),
    "pulmonary_artery": ("81040000", "", "exact"),
    "vessels": ("59820001", "", "near"),
    "oesophagus": ("32849002", "", "exact"),
    "mediastinum": ("72410000", "", "exact"),
    "pericardium": ("76848001", "", "exact"),
    "pleura": ("3120008", "", "exact"),
    "diaphragm": ("5798000", "", "exact"),
    "spine": ("421060004", "", "exact"),
    "ribs": ("113197003", "", "near"),
    "sternum": ("56873002", "", "exact"),
    "shoulder_girdle": ("16982005", "", "near"),
    "liver": ("10200004", "", "exact"),
    "spleen": ("78961009", "", "exact"),
    "stomach": ("69695003", "", "exact"),
    "chest_wall": ("78904004", "", "exact"),
    "subcutaneous_fat": ("71966008", "", "near"),
    "body": ("22943007", "", "near"),
}


def test_the_table_is_the_one_that_was_reviewed() -> None:
    assert {key: (e.code, e.laterality, e.match) for key, e in table().items()} == PINNED


def test_every_code_is_one_of_dicom_with_its_meaning() -> None:
    known = {(code.value, code.meaning) for code in map(_code, dir(codes.SCT)) if code is not None}
    assert {(entry.code, entry.meaning) for entry in table().values()} <= known


def _code(keyword: str) -> Code | None:
    found = getattr(codes.SCT, keyword, None)
    return found if isinstance(found, Code) else None


def test_a_place_is_found_by_the_words_of_a_report() -> None:
    assert place_code("right  lower lobe") == table()["right_lower_lobe"]
    assert place_code("T8") is None
    assert place_code("") is None
