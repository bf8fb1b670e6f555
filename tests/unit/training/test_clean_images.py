"""What a dataset holds of a labelled folder: copies that tell nothing of the patient, and notes of what to look at."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import marked
import pydicom
import pytest
import tiny_learner
from school import School, tiny_png

from clinic_ai.contract import Dataset
from clinic_ai.control.orders import RunDesk
from clinic_ai.control.training_views import RunOrder
from clinic_ai.errors import DatasetError
from clinic_ai.ml.subgroups import by_subgroup, traits
from clinic_ai.store import meta
from clinic_ai.training.datasets import Datasets
from clinic_ai.training.label_reading import Terms

TINY = tiny_learner.manifest()


@pytest.fixture
def frozen(school: School) -> Datasets:
    return school.runs.datasets


def table(folder: Path, names: Sequence[str]) -> Path:
    """Write labels.csv: each file of a patient of its own."""
    rows = [f"{name},{marked.MARK}-{number},{number % 2}" for number, name in enumerate(names)]
    (folder / "labels.csv").write_text("\n".join(["file,patient_id,pneumonia", *rows]) + "\n")
    return folder


def drop(tmp_path: Path) -> Path:
    """Make a folder of three DICOM images and two PNGs with everything marked."""
    for number in range(3):
        image = marked.image(SOPInstanceUID=f"{marked.ROOT}.{number}", PixelData=bytes([number]) * 48)
        image.BurnedInAnnotation = "YES" if number == 2 else "NO"
        marked.write(image, tmp_path / f"{number}.dcm")
    for number in (3, 4):
        (tmp_path / f"{number}.png").write_bytes(tiny_png(str(number), comment=f"{marked.MARK} of {number}"))
    return table(tmp_path, ["0.dcm", "1.dcm", "2.dcm", "3.png", "4.png"])


def contents(dataset: Dataset) -> list[bytes]:
    return [Path(example.path).read_bytes() for example in dataset.examples]


def test_nothing_of_the_patients_is_in_a_dataset(frozen: Datasets, tmp_path: Path) -> None:
    dataset = frozen.freeze(TINY, drop(tmp_path), "ada")
    assert len(dataset.examples) == 4
    for content in contents(dataset):
        assert marked.traces(content) == []
    assert marked.MARK not in dataset.model_dump_json()
    copies = [pydicom.dcmread(e.path) for e in dataset.examples if Path(e.path).read_bytes()[128:132] == b"DICM"]
    assert {copy.PatientIdentityRemoved for copy in copies} == {"YES"}
    assert frozen.get(dataset.dataset_id) == dataset


def test_burnt_in_text_is_left_out_or_kept_and_named(frozen: Datasets, tmp_path: Path) -> None:
    folder = drop(tmp_path)
    left_out = frozen.freeze(TINY, folder, "ada")
    assert any(note.startswith("1 image was left out") and "2.dcm" in note for note in left_out.notes)
    assert any("2 images may carry burnt-in text" in note and "3.png, 4.png" in note for note in left_out.notes)
    kept = frozen.freeze(TINY, folder, "ada", Terms(keep_burned_in=True))
    assert len(kept.examples) == len(left_out.examples) + 1
    assert any(note.startswith("1 image has text burnt in") and "2.dcm" in note for note in kept.notes)


def test_who_starts_a_run_is_told_and_nobody_else(school: School, tmp_path: Path) -> None:
    desk = RunDesk(school.runs, "ada")
    row = desk.start_run(RunOrder(plugin=TINY.name, dataset=str(drop(tmp_path))))
    assert any("2.dcm" in note for note in row.dataset_notes)
    assert desk.run(row.run_id).dataset_notes == ()


def test_a_folder_of_nothing_but_burnt_in_text(frozen: Datasets, tmp_path: Path) -> None:
    marked.write(marked.image(BurnedInAnnotation="YES"), tmp_path / "a.dcm")
    with pytest.raises(DatasetError, match=r"No image is left of it. 1 image was left out"):
        frozen.freeze(TINY, table(tmp_path, ["a.dcm"]), "ada")


def test_patients_and_splits_are_those_of_the_folder(school: School, frozen: Datasets, tmp_path: Path) -> None:
    dataset = frozen.freeze(TINY, drop(tmp_path), "ada")
    with school.database.write() as connection:
        key = meta.site_key(connection)
    expected = {meta.patient_key(key, f"{marked.MARK}-{number}") for number in (0, 1, 3, 4)}
    assert {example.patient_key for example in dataset.examples} == expected


def test_freezing_again_makes_no_copy_again(school: School, frozen: Datasets, tmp_path: Path) -> None:
    folder = drop(tmp_path)
    first = frozen.freeze(TINY, folder, "ada")
    school.crew.close()  # no child can be started any more
    again = frozen.freeze(TINY, folder, "ada")
    assert (again.dataset_id, again.digest) == (first.dataset_id, first.digest)


def films(tmp_path: Path) -> Path:
    """Make a folder of twelve films of twelve patients: women of two ages at one station, men at another."""
    for number in range(12):
        film = marked.image(SOPInstanceUID=f"{marked.ROOT}.{number}", PixelData=bytes([number]) * 48)
        film.PatientSex, film.PatientAge, film.StationName = "FM"[number % 2], "", f"{marked.MARK} {number % 2}"
        film.PatientBirthDate, film.StudyDate = "19600615", "20250615" if number < 6 else "20250614"
        film.ManufacturerModelName, film.ViewPosition = "DX 7", "PA"
        marked.write(film, tmp_path / f"{number}.dcm")
    return table(tmp_path, [f"{number}.dcm" for number in range(12)])


def test_figures_by_sex_age_and_station_rest_on_what_the_originals_said(frozen: Datasets, tmp_path: Path) -> None:
    dataset = frozen.freeze(TINY, films(tmp_path), "ada")
    assert frozen.get(dataset.dataset_id) == dataset
    assert marked.MARK not in dataset.model_dump_json()
    assert all(marked.traces(content) == [] for content in contents(dataset))
    images = [traits(example.path, example.groups) for example in dataset.examples]
    labels = [example.labels["pneumonia"] for example in dataset.examples]
    patients = [example.patient_key for example in dataset.examples]
    told = by_subgroup(images, labels, [0.5] * 12, patients, 0.5)
    women, men = told["sex"]["female"], told["sex"]["male"]
    assert (women["images"], women["positives"], men["images"], men["positives"]) == (6, 0, 6, 6)
    assert {age: figures["images"] for age, figures in told["age"].items()} == {"40-64": 6, "65+": 6}
    assert [figures["images"] for figures in told["station"].values()] == [6, 6]
    assert all(re.fullmatch("station [0-9a-f]{8}", name) for name in told["station"])
    assert (list(told["view"]), list(told["model"])) == (["PA"], ["DX 7"])


def test_datasets_and_copies_of_older_versions_have_no_groups_and_stay_valid(
    school: School, frozen: Datasets, tmp_path: Path
) -> None:
    folder = films(tmp_path)
    dataset = frozen.freeze(TINY, folder, "ada")
    bare = [example.model_copy(update={"groups": {}}) for example in dataset.examples]
    with school.database.write() as connection:
        for kind in ("datasets", "deidentified"):
            for rowid, text in connection.exec_driver_sql(f"SELECT rowid, document FROM {kind}").all():
                document = json.loads(text)
                for said in document.get("examples", [document]):
                    del said["groups"]
                connection.exec_driver_sql(
                    f"UPDATE {kind} SET document = ? WHERE rowid = ?", (json.dumps(document), rowid)
                )
    again = frozen.freeze(TINY, folder, "ada")
    assert (again.dataset_id, again.digest, list(again.examples)) == (dataset.dataset_id, dataset.digest, bare)
    assert list(frozen.get(dataset.dataset_id).examples) == bare


def test_what_cannot_be_made_clean_is_a_problem_of_the_folder(frozen: Datasets, tmp_path: Path) -> None:
    drop(tmp_path)
    report = marked.image(SOPClassUID="1.2.840.10008.5.1.4.1.1.104.1")  # an encapsulated PDF
    marked.write(report, tmp_path / "report.dcm")
    (tmp_path / "cut.png").write_bytes(tiny_png("9")[:-9])
    with pytest.raises(DatasetError) as error:
        frozen.freeze(TINY, table(tmp_path, ["0.dcm", "report.dcm", "cut.png"]), "ada")
    assert "2 problems" in error.value.message
    assert "report.dcm: It holds no image that can be de-identified (Encapsulated PDF Storage)" in error.value.message
    assert "cut.png: The PNG is damaged" in error.value.message


def test_pictures_that_differ_in_their_comments_alone_are_one(frozen: Datasets, tmp_path: Path) -> None:
    for name, comment in (("a", "first"), ("b", "second"), ("c", "")):
        (tmp_path / f"{name}.png").write_bytes(tiny_png("other" if name == "c" else "same", comment))
    (tmp_path / "labels.csv").write_text("file,patient_id,pneumonia\na.png,A,1\nb.png,A,1\nc.png,B,0\n")
    assert len(frozen.freeze(TINY, tmp_path, "ada").examples) == 2
    (tmp_path / "labels.csv").write_text("file,patient_id,pneumonia\na.png,A,1\nb.png,C,1\nc.png,B,0\n")
    with pytest.raises(DatasetError, match="the same image of two patients"):
        frozen.freeze(TINY, tmp_path, "ada")
