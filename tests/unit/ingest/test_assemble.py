"""What belongs together does not depend on order, interleaving, batching or repetition."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinic_ai.domain import FileKind, InstanceHeader, PatientIdentity
from clinic_ai.ingest import assemble
from clinic_ai.ingest.assemble import Arrival, Known
from clinic_ai.ingest.identifiers import study_uid


def slice_(study: int, number: int, *, patient: str = "", uid: bool = True, folder: str = "a") -> Arrival:
    header = InstanceHeader(
        kind=FileKind.DICOM,
        study_instance_uid=f"1.2.{study}" if uid else "",
        sop_instance_uid=f"1.2.{study}.{number}" if uid else "",
        identity=PatientIdentity(patient_id=patient or f"P{study}"),
    )
    return Arrival(number, f"{study:032x}{number:032x}", 1, "inbox", folder, header)


def picture(number: int, **fields: str) -> Arrival:
    return Arrival(number, f"{number:064x}", 1, "inbox", "", InstanceHeader(kind=FileKind.PNG, **fields))


def stored(batches: Sequence[Sequence[Arrival]]) -> dict[str, frozenset[str]]:
    """Run batches through grouping and sorting as ``filing`` does; return the hashes each study ends with."""
    studies: dict[str, set[str]] = {}
    uids: dict[str, set[str]] = {}
    for batch in batches:
        for key, members in assemble.group(batch).items():
            known = Known(frozenset(studies.get(key, ())), frozenset(uids.get(key, ())))
            found = assemble.sort_out(members, known)
            assert not found.conflicts
            assert len(found.new) + len(found.duplicates) == len(members)
            studies.setdefault(key, set()).update(arrival.sha256 for arrival in found.new)
            uids.setdefault(key, set()).update(arrival.header.sop_instance_uid for arrival in found.new)
    return {key: frozenset(hashes) for key, hashes in studies.items()}


arrivals = st.lists(
    st.builds(slice_, study=st.integers(1, 4), number=st.integers(1, 9), uid=st.booleans())
    | st.builds(picture, number=st.integers(1, 9)),
    min_size=1,
    max_size=30,
)


@given(arrivals, st.data())
def test_any_order_any_batches_and_any_repetition_give_the_same_studies(
    once: list[Arrival], data: st.DataObject
) -> None:
    again = data.draw(st.permutations(once + data.draw(st.lists(st.sampled_from(once)))))
    cut = data.draw(st.integers(0, len(again)))
    assert stored([again[:cut], again[cut:]]) == stored([once])


def test_the_same_uid_with_other_bytes_is_a_conflict() -> None:
    first = slice_(1, 1)
    other = Arrival(2, "f" * 64, 1, "inbox", "a", first.header)
    found = assemble.sort_out([first, other], Known())
    assert found.new == [first]
    assert [problem.code for _, problem in found.conflicts] == ["same_uid_other_bytes"]


def test_two_patients_in_one_study_are_a_conflict_but_a_missing_number_is_not() -> None:
    found = assemble.sort_out([slice_(1, 1, patient="A"), slice_(1, 2, patient="B")], Known())
    assert [problem.code for _, problem in found.conflicts] == ["other_patient"]
    nameless = slice_(1, 3)
    nameless = Arrival(
        3, nameless.sha256, 1, "inbox", "a", nameless.header.model_copy(update={"identity": PatientIdentity()})
    )
    assert assemble.sort_out([nameless], Known(identity=PatientIdentity(patient_id="A"))).new == [nameless]


@pytest.mark.parametrize(
    ("one", "other", "different"),
    [
        ({"patient_id": "A", "birth_date": "19700101"}, {"patient_id": "A", "birth_date": "19700102"}, False),
        ({"patient_id": "A", "patient_name": "DOE^JANE"}, {"patient_name": "DOE^JANE^^DR"}, False),
        ({"patient_id": "A", "patient_name": "DOE^JANE"}, {"patient_name": "Jane Doe"}, False),
        ({"patient_id": "A", "patient_name": "DOE^JANE"}, {"patient_name": "AAA^OTHER"}, True),
        ({"patient_id": "A", "birth_date": "19700101"}, {"birth_date": "18500101"}, True),
        ({"patient_id": "A", "sex": "F"}, {"sex": "O"}, False),
        ({"sex": "F"}, {"sex": "m"}, True),
        ({"patient_id": "A", "sex": "F"}, {"patient_id": "B", "sex": "F"}, True),
        ({"patient_id": "A", "patient_name": "^^"}, {"patient_name": "DOE"}, False),
    ],
)
def test_who_is_another_patient(one: dict[str, str], other: dict[str, str], different: bool) -> None:
    pair = PatientIdentity(**one), PatientIdentity(**other)
    assert assemble.other_patient(*pair) is assemble.other_patient(*reversed(pair)) is different


def test_without_uids_two_patients_in_one_folder_stay_apart() -> None:
    one, two = slice_(1, 1, patient="A", uid=False), slice_(1, 2, patient="B", uid=False)
    assert len(assemble.group([one, two])) == 2
    assert "A" not in assemble.grouping_key(one).removeprefix("folder:").upper().split("P")


def test_who_names_nobody_is_nameless() -> None:
    nobody = picture(1).header.model_copy(update={"kind": FileKind.DICOM, "sop_instance_uid": "1.2.3"})
    assert assemble.nameless(nobody)
    for field, value in (("study_date", "20260101"), ("series_instance_uid", "1.2"), ("study_instance_uid", "1.2")):
        assert not assemble.nameless(nobody.model_copy(update={field: value}))
    assert not assemble.nameless(nobody.model_copy(update={"identity": PatientIdentity(birth_date="19700101")}))
    assert not assemble.nameless(picture(1).header)


def test_our_own_study_uid_is_valid_and_follows_from_the_key() -> None:
    arrival = picture(1)
    uid = study_uid(arrival.header, assemble.grouping_key(arrival))
    assert uid == study_uid(arrival.header, assemble.grouping_key(arrival))
    assert uid.startswith("2.25.")
    assert len(uid) <= 64


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("DX/CHEST", ("DX", "CHEST")),
        ("patient 17/cr/hand", ("CR", "HAND")),
        ("US", ("US", "ABDOMEN")),
        ("", ("OT", "ABDOMEN")),
        ("holiday/2024", ("OT", "ABDOMEN")),
        ("MR/this is not a body part at all", ("MR", "ABDOMEN")),
    ],
)
def test_folders_say_what_an_image_file_shows(folder: str, expected: tuple[str, str]) -> None:
    header = assemble.with_folder_hints(InstanceHeader(kind=FileKind.PNG), folder, "OT", "ABDOMEN")
    assert (header.modality, header.body_part) == expected


def test_folders_do_not_overrule_dicom() -> None:
    header = InstanceHeader(kind=FileKind.DICOM, modality="CT")
    assert assemble.with_folder_hints(header, "DX/CHEST", "US", "") == header


def test_what_the_first_instance_left_empty_is_filled_and_nothing_overwritten() -> None:
    merged = assemble.merged_identity(PatientIdentity(patient_name="A"), [slice_(1, 1, patient="B")])
    assert merged == PatientIdentity(patient_name="A", patient_id="B")
