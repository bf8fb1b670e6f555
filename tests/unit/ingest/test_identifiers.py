"""UIDs of our own: what they follow from, what tells two series apart, and what is said of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slices import image

from clinic_ai.domain import FileKind, Instance, InstanceHeader, PatientIdentity
from clinic_ai.ingest import assemble
from clinic_ai.ingest.assemble import Arrival
from clinic_ai.ingest.identifiers import beside_another, key_for_patient, own_uid, remarks_of, with_own_uids
from clinic_ai.ml.uids import is_uid

JANE = PatientIdentity(patient_id="1", patient_name="Doe^Jane", birth_date="19700101", accession_number="A")


def nameless(number: int = 1, **changes: Any) -> InstanceHeader:
    """Return the header of an axial slice without any UID."""
    values = {"identity": JANE, "study_date": "20260101", "slice_thickness": 2.5} | changes
    return image(number, (0.0, 0.0, 2.5 * number), series="", **values).header


def arrival(header: InstanceHeader, *, number: int = 1, folder: str = "a", source: str = "inbox") -> Arrival:
    return Arrival(number, f"{number:064x}", 1, source, folder, header)


def identified(header: InstanceHeader, number: int = 1) -> InstanceHeader:
    one = arrival(header, number=number)
    return with_own_uids(header, assemble.grouping_key(one), one.sha256)


@given(st.lists(st.text(), max_size=4))
def test_our_uids_are_valid_and_follow_from_their_parts(parts: list[str]) -> None:
    assert is_uid(own_uid("object", *parts))
    assert own_uid("object", *parts) == own_uid("object", *parts)
    assert own_uid("object", *parts) != own_uid("series", *parts)


@pytest.mark.parametrize(
    "difference",
    [
        {"series_number": 2},
        {"series_description": "lung"},
        {"modality": "PT"},
        {"rows": 128},
        {"columns": 128},
        {"pixel_spacing": (0.7, 0.7)},
        {"slice_thickness": 5.0},
        {"image_type": ("ORIGINAL", "PRIMARY", "LOCALIZER")},
        {"image_orientation_patient": (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)},
    ],
    ids=lambda difference: next(iter(difference)),
)
def test_what_tells_series_of_one_folder_apart(difference: dict[str, Any]) -> None:
    one, two, other = identified(nameless(1)), identified(nameless(2), 2), identified(nameless(3, **difference), 3)
    assert one.study_instance_uid == two.study_instance_uid == other.study_instance_uid
    assert one.series_instance_uid == two.series_instance_uid != other.series_instance_uid
    assert len({one.sop_instance_uid, two.sop_instance_uid, other.sop_instance_uid}) == 3


def test_rounding_of_a_direction_does_not_tear_a_series() -> None:
    straight, rounded = nameless(1), nameless(2, image_orientation_patient=(1.0, -1e-6, 0.0, 0.0, 0.99999, 1e-5))
    assert identified(straight).series_instance_uid == identified(rounded, 2).series_instance_uid


@pytest.mark.parametrize("field", ["patient_id", "patient_name", "birth_date", "accession_number"])
def test_two_patients_in_one_folder_are_two_studies(field: str) -> None:
    other = nameless(2, identity=JANE.model_copy(update={field: "other"}))
    assert identified(nameless()).study_instance_uid != identified(other, 2).study_instance_uid


def test_two_days_folders_or_inboxes_are_two_studies() -> None:
    keys = {
        assemble.grouping_key(arrival(nameless())),
        assemble.grouping_key(arrival(nameless(study_date="20260102"))),
        assemble.grouping_key(arrival(nameless(), folder="b")),
        assemble.grouping_key(arrival(nameless(), source="other")),
    }
    assert len(keys) == 4


def test_a_series_uid_counts_more_than_a_folder_but_joins_no_two_patients() -> None:
    one = nameless(series_instance_uid="1.2.3")
    other = nameless(series_instance_uid="1.2.3", identity=JANE.model_copy(update={"patient_id": "2"}))
    keys = [assemble.grouping_key(arrival(header, folder=folder)) for header, folder in ((one, "a"), (one, "b"))]
    assert keys[0] == keys[1] != assemble.grouping_key(arrival(other))


def test_no_key_holds_what_names_a_patient() -> None:
    who = PatientIdentity(patient_id="ID-4711", patient_name="Xanthippe")
    key = assemble.grouping_key(arrival(nameless(identity=who)))
    for text in (key, key_for_patient(key, who.patient_id)):
        assert "4711" not in text
        assert "Xanthippe" not in text


def test_what_has_its_uids_keeps_them() -> None:
    header = nameless(study_instance_uid="1.2.1", series_instance_uid="1.2.2", sop_instance_uid="1.2.3")
    assert identified(header) == header
    picture = InstanceHeader(kind=FileKind.PNG)
    assert identified(picture) == picture


def test_remarks_count_and_hold_no_value_of_a_header() -> None:
    headers = [identified(nameless(n), n) for n in (1, 2, 3)]
    headers[2] = beside_another(headers[2], "f" * 64)
    found = [Instance(sha256=f"{n:064x}", size_bytes=1, header=header) for n, header in enumerate(headers)]
    said = remarks_of(found, 1)
    assert [sentence.split(" was")[0].split(" were")[0] for sentence in said] == [
        "3 objects",
        "3 objects",
        "3 objects",
        "1 object",
        "1 object",
    ]
    assert "sorted into series (1)" in said[1]
    assert "a person decided so" in said[-1]
    assert not any(word in " ".join(said) for word in ("Doe", "2.25", "20260101"))


def test_nothing_is_said_where_nothing_was_done() -> None:
    assert remarks_of([image(1, (0.0, 0.0, 0.0))], 0) == ()
