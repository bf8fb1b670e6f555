"""Figures by subgroup, from headers that say much, little or rubbish."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from clinic_ai.ml.subgroups import UNKNOWN, age_group, by_subgroup, traits, weak_groups


@pytest.fixture
def film(tmp_path):
    def write(**values):
        dataset = Dataset()
        dataset.SOPClassUID, dataset.SOPInstanceUID = DigitalXRayImageStorageForPresentation, generate_uid()
        for keyword, value in values.items():
            setattr(dataset, keyword, value)
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path = tmp_path / "film.dcm"
        dataset.save_as(path, enforce_file_format=True)
        return path

    return write


def test_traits_are_those_of_the_header(film):
    path = film(PatientSex="F", PatientAge="066Y", ViewPosition="AP", ManufacturerModelName="DX 7", StationName="ROOM1")
    assert traits(path) == {"sex": "female", "age": "65+", "view": "AP", "station": "ROOM1", "model": "DX 7"}


def test_what_a_dataset_says_goes_before_the_header_of_its_copy(film):
    copy = film(PatientSex="", StationName="ANONYMIZED", ViewPosition="PA", ManufacturerModelName="DX 7")
    said = {"sex": "F", "age": "40-64", "station": "station 3fa1b2c4", "other": "x"}
    told = {"sex": "female", "age": "40-64", "view": "PA", "station": "station 3fa1b2c4", "model": "DX 7"}
    assert traits(copy, said) == told
    assert traits(copy, {}) == traits(copy)
    assert traits("missing", {**said, "view": "AP"}) == {**told, "view": "AP", "model": UNKNOWN}


def test_what_is_not_said_is_unknown(film, tmp_path):
    assert set(traits(film(PatientSex="", ViewPosition=None, StationName="ANONYMIZED")).values()) == {UNKNOWN}
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    assert set(traits(tmp_path / "a.png").values()) == {UNKNOWN}
    assert set(traits(tmp_path / "missing").values()) == {UNKNOWN}


def test_a_header_of_rubbish_is_survived(film):
    path = film(PatientSex="M", PatientAge="045Y", ViewPosition="PA", ManufacturerModelName="A" * 16)
    whole = path.read_bytes()
    for cut in range(132, len(whole), 3):
        path.write_bytes(whole[:cut])
        traits(path)
        path.write_bytes(whole[:cut] + b"\xff\x00" + whole[cut + 2 :])
        assert all(len(value) <= 64 for value in traits(path).values())


@pytest.mark.parametrize(
    ("age", "group"),
    [
        ("003D", "0-17"),
        ("051W", "0-17"),
        ("215M", "0-17"),
        ("216M", "18-39"),
        ("017Y", "0-17"),
        ("018Y", "18-39"),
        ("040Y", "40-64"),
        ("064y", "40-64"),
        ("065Y", "65+"),
        ("65", UNKNOWN),
        ("", UNKNOWN),
    ],
)
def test_age_groups(age, group):
    assert age_group(age) == group


def test_a_group_that_is_judged_worse_is_named():
    generator = np.random.default_rng(0)
    labels = np.tile([0, 1], 100)
    views = np.repeat(["PA", "AP"], 100)
    scores = np.clip(0.5 + 0.3 * (labels - 0.5) * (views == "PA") + generator.normal(0, 0.05, 200), 0, 1)
    images = [{"view": str(view), "sex": UNKNOWN} for view in views]
    table = by_subgroup(images, labels, scores, [str(n // 2) for n in range(200)], 0.5)
    assert list(table) == ["view"]
    assert (table["view"]["PA"]["images"], table["view"]["PA"]["patients"], table["view"]["AP"]["positives"]) == (
        100,
        50,
        50,
    )
    assert table["view"]["PA"]["sensitivity"] > 0.9 > table["view"]["AP"]["sensitivity"]
    (sentence,) = weak_groups(table, 0.85)
    assert sentence.startswith("In the 100 images of view AP the AUROC is 0.")
    (sentence,) = weak_groups({"station": {"station 3fa1b2c4": table["view"]["AP"]}}, 0.85)
    assert sentence.startswith("In the 100 images of station 3fa1b2c4 the AUROC is 0.")


def test_small_groups_and_groups_of_one_class_are_counted_alone():
    images = [{"view": "PA"}] * 9 + [{"view": "AP"}] * 20 + [{"view": UNKNOWN}] * 12
    labels = [0, 1, 0, 1, 0, 1, 0, 1, 1] + [1] * 20 + [0, 1] * 6
    table = by_subgroup(images, labels, np.linspace(0, 1, 41), [str(n) for n in range(41)], 0.5)["view"]
    assert table["PA"] == {"images": 9, "patients": 9, "positives": 5}
    assert table["AP"] == {"images": 20, "patients": 20, "positives": 20}
    assert "auroc" in table[UNKNOWN]


@pytest.mark.parametrize(("patients", "measured"), [(1, False), (4, False), (5, True)])
def test_a_group_of_few_patients_is_counted_alone(patients, measured):
    """One patient drawn again and again gives an interval of no width, by which any group would be worse for sure."""
    scores = np.linspace(0, 1, 20)
    who = [str(n % patients) for n in range(20)]
    table = by_subgroup([{"view": "PA"}] * 20, [0, 1] * 10, scores, who, 0.5)
    assert ("auroc" in table["view"]["PA"]) == measured
    assert measured or weak_groups(table, 1.0) == []


def test_without_any_header_there_is_no_table():
    assert by_subgroup([{"view": UNKNOWN}] * 20, [0, 1] * 10, np.linspace(0, 1, 20), ["p"] * 20, 0.5) == {}
