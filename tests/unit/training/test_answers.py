"""Datasets of questions and answers, from a folder with a sheet; the children that read and de-identify are real."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import tiny_learner
from school import School, tiny_png
from tiny_learner import write_model
from workbooks import workbook

from clinic_ai.contract import Dataset, Example, PluginManifest
from clinic_ai.domain import CategoryInfo, QuestionAnswer
from clinic_ai.errors import DatasetError
from clinic_ai.store import datasets as store
from clinic_ai.store.meta import patient_key, site_key
from clinic_ai.training.checking import Checked
from clinic_ai.training.datasets import Datasets, digest_of
from clinic_ai.training.label_reading import Terms

CATEGORIES = (
    CategoryInfo(key="abdomen", label="Abdomen", aliases=("Abodomen",), questions=("Which view?",)),
    CategoryInfo(key="femur", label="Femur", aliases=("thigh",)),
    CategoryInfo(key="trans_cerebellum", label="Trans-cerebellum"),
    CategoryInfo(key="trans_thalamic", label="Trans-thalamic"),
    CategoryInfo(key="trans_ventricular", label="Trans-ventricular"),
    CategoryInfo(key="cervix", label="Cervix", aliases=("thigh",)),
)
UNTRAINABLE = ("trans_cerebellum", "trans_thalamic", "trans_ventricular", "cervix")
HEADER = ["Image Name", *(f"{kind} {n}" for n in range(1, 9) for kind in ("Question", "Answer"))]


@pytest.fixture
def manifest(school: School) -> PluginManifest:
    made = tiny_learner.manifest().model_copy(update={"labels": "answers", "categories": CATEGORIES})
    school.manifests[made.name] = made
    return made


@pytest.fixture
def frozen(school: School) -> Datasets:
    return school.runs.datasets


def images(folder: Path, *names: str) -> Path:
    """Write a PNG for each name, each another one."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(tiny_png(str(folder / name)))
    return folder


def labelled(folder: Path, count: int = 5) -> Path:
    """Write the folder of the first clinic: five images, eight questions about each."""
    images(folder, *(f"{n}.png" for n in range(count)))
    rows = [[n, *(x for q in range(8) for x in (f"What about {q}?", f"answer {q} {n}"))] for n in range(count)]
    workbook(folder / "labels.xlsx", [HEADER, *rows])
    return folder


def pairwise(folder: Path, *rows: tuple[object, ...]) -> Path:
    workbook(folder / "labels.xlsx", [("image", "question", "answer"), *rows])
    return folder


def left_behind(school: School) -> list[str]:
    """Return what stays of a dataset: rows, and files in the object stores."""
    with school.database.read() as connection:
        rows = [*store.splits_of(connection, "tiny"), *store.all_images(connection)]
    files = [str(p) for root in (school.home.datasets, school.home.objects) for p in root.rglob("*") if p.is_file()]
    return rows + files


def test_five_images_with_eight_questions(
    frozen: Datasets, school: School, manifest: PluginManifest, tmp_path: Path
) -> None:
    folder = labelled(tmp_path / "Abodomen")

    checked = frozen.check(manifest, folder)
    assert left_behind(school) == []
    dataset = frozen.freeze(manifest, folder, "ada")

    assert (dataset.category, len(dataset.examples)) == ("abdomen", 5)
    assert all(example.labels == {} and len(example.pairs) == 8 for example in dataset.examples)
    assert sorted(example.split for example in dataset.examples) == ["test", "train", "train", "train", "validation"]
    assert frozen.get(dataset.dataset_id) == dataset
    assert frozen.freeze(manifest, labelled(tmp_path / "again" / "abdomen"), "ada").digest != dataset.digest
    assert frozen.freeze(manifest, folder, "ada").dataset_id == dataset.dataset_id
    notes = frozen.notes(dataset.dataset_id)
    assert (
        notes[:3]
        == checked.parts
        == (
            "train: 3 images of 3 patients, 24 pairs of question and answer.",
            "validation: 1 image of 1 patient, 8 pairs of question and answer.",
            "test: 1 image of 1 patient, 8 pairs of question and answer.",
        )
    )
    assert (checked.problems, checked.images, checked.pairs, checked.category) == ((), 5, 40, "abdomen")
    assert checked.patients == {"train": 3, "validation": 1, "test": 1}
    assert [(asked.question, asked.images, asked.answers) for asked in checked.questions] == [
        (f"What about {n}?", 5, 5) for n in range(8)
    ]


def test_patients_are_of_folders_or_a_column_and_stay_where_they_are(
    frozen: Datasets, school: School, manifest: PluginManifest, tmp_path: Path
) -> None:
    folder = images(tmp_path / "femur", *(f"images/p{n}/{side}.png" for n in range(6) for side in "ab"))
    rows = [(f"p{n}/{side}.png", "where?", side) for n in range(6) for side in "ab"]
    splits = _splits(frozen.freeze(manifest, pairwise(folder, *rows), "ada"))
    with school.database.write() as connection:
        key = site_key(connection)

    def named(name: str, patients: list[str]) -> Path:
        """Write a folder whose sheet names the patient of each image."""
        folder = images(tmp_path / name, *(f"{n}.png" for n in range(len(patients))))
        rows = [(f"{n}.png", patient, "where?", n) for n, patient in enumerate(patients)]
        workbook(folder / "a.xlsx", [("image", "patient", "question", "answer"), *rows])
        return folder

    everybody = [f"p{n}" for n in range(6)]
    assert splits.keys() == {patient_key(key, name) for name in everybody}
    assert _splits(frozen.freeze(manifest, named("second", everybody), "ada", Terms(category="Abdomen"))) == splits
    learned = [name for name in everybody if splits[patient_key(key, name)] == "train"]
    with pytest.raises(DatasetError, match=r"Nobody is left for validation and test: .* for life"):
        frozen.freeze(manifest, named("third", learned), "ada", Terms(category="femur"))


def _splits(dataset: Dataset) -> dict[str, str]:
    return {example.patient_key: example.split for example in dataset.examples}


@pytest.mark.parametrize("key", UNTRAINABLE)
def test_a_category_without_a_sheet_says_exactly_what_it_needs(
    school: School, manifest: PluginManifest, key: str
) -> None:
    label = next(category.label for category in CATEGORIES if category.key == key)
    folder = school.home.labels / "tiny" / key
    sentence = f"The category {label} has no trained model: it needs a labelled sheet (.xlsx) in {folder}."

    assert _why_not(school, key) == sentence  # no folder yet
    images(folder, "a.png")
    assert _why_not(school, key) == sentence
    checked = school.runs.check("tiny", school.home.labels / "tiny", key)
    assert checked.problems[0].startswith(sentence)
    assert (checked.category, checked.images, checked.parts) == (key, 0, ())


def _why_not(school: School, key: str) -> str:
    with pytest.raises(DatasetError) as error:
        school.runs.start("tiny", school.home.labels / "tiny", {"category": key}, "ada")
    return error.value.message


def test_one_that_has_a_model_is_not_said_to_have_none(
    frozen: Datasets, manifest: PluginManifest, tmp_path: Path
) -> None:
    (tmp_path / "femur").mkdir()
    with pytest.raises(
        DatasetError, match=r"^The category Femur cannot be trained anew: it needs a labelled sheet \(.xlsx\)"
    ):
        frozen.freeze(manifest, tmp_path / "femur", "ada", Terms(trained=frozenset({"femur"})))


def test_the_category_is_named_by_the_folder_or_a_person(
    frozen: Datasets, school: School, manifest: PluginManifest, tmp_path: Path
) -> None:
    def problem(folder: Path, category: str = "") -> str:
        return " ".join(frozen.check(manifest, folder, Terms(category=category)).problems)

    assert "“femmur” is no category of this plugin (nearest: femur)" in problem(tmp_path / "femmur")
    assert "(it knows: abdomen, femur, " in problem(tmp_path / "xyz")
    assert "“Thigh” may mean femur or cervix." in problem(tmp_path / "Thigh")
    assert frozen.check(manifest, tmp_path / "Thigh", Terms(category="cervix")).category == "cervix"
    assert "has a folder for each category" in problem(school.home.labels / "tiny")
    inner = school.home.labels / "tiny" / "A-BODOMEN"
    inner.mkdir(parents=True)
    assert frozen.check(manifest, inner.parent, Terms(category="abdomen")).directory == str(inner)
    (inner.parent / "abdomen").mkdir()
    assert "more than one folder of Abdomen" in problem(inner.parent, "abdomen")
    conditions = tiny_learner.manifest()
    assert "has no categories" in " ".join(frozen.check(conditions, tmp_path, Terms(category="abdomen")).problems)


def test_every_problem_is_told_and_nothing_is_half_imported(
    frozen: Datasets, school: School, manifest: PluginManifest, tmp_path: Path
) -> None:
    folder = images(tmp_path / "femur", "a.png", "b.png", "p1/c.png", "p2/c.png", "unnamed.png")
    (folder / "cut.xlsx").write_bytes(b"PK\x03\x04")
    (folder / "old.xls").write_bytes(b"\xd0\xcf\x11\xe0")
    (folder / "~$labels.xlsx").write_bytes(b"x")
    (folder / "notes.txt").write_text("x")
    (folder / "link.png").symlink_to(folder / "a.png")
    (Path(os.fsdecode(bytes(folder) + b"/\xff.png"))).write_bytes(tiny_png("x"))
    workbook(folder / "none.xlsx", [])
    rows = [
        ("a.png", "where?", "left"),
        ("A", "Where ?", "Left."),
        ("a.png", "where?", "right"),
        ("c.png", "where?", "left"),
        ("missing.png", "where?", "left"),
        ("b.png", "where?", None),
    ]
    pairwise(folder, *rows)

    checked = frozen.check(manifest, folder)
    with pytest.raises(DatasetError) as error:
        frozen.freeze(manifest, folder, "ada")

    place = "labels.xlsx, sheet Labels, row"
    assert (
        set(checked.problems)
        == set(error.value.problems)
        == {
            "link.png in femur is a link; put the file itself there.",
            r"\udcff.png has a name that is no text (UTF-8); rename it.",
            "old.xls is no .xlsx workbook; open it in Excel or LibreOffice, save it as .xlsx, and take this one away.",
            "cut.xlsx is damaged, was not copied whole, or is no Excel workbook. Open it in Excel or LibreOffice and "
            "save it as .xlsx again.",
            "none.xlsx is empty: no sheet of it has a filled cell.",
            f"{place} 4, column C: “where?” about “a.png” has another answer than at {place} 2, column C.",
            f"{place} 5, column A: “c.png” may be p1/c.png or p2/c.png; write it with its folder and ending.",
            f"{place} 6, column A: there is no image “missing.png” in femur.",
            f"{place} 7, column C: the answer is empty.",
        }
    )
    assert "labels.xlsx is open in a spreadsheet program; what is not saved is not in it." in checked.notes
    assert "1 file was left out, neither PNG, JPEG nor DICOM: notes.txt." in checked.notes
    assert any(
        note.startswith("1 question stands there twice for one image with the same answer") for note in checked.notes
    )
    assert any(
        "3 images have no row and will not be learned: p1/c.png, p2/c.png, unnamed.png" in n for n in checked.notes
    )
    assert left_behind(school) == []


def test_equal_images_share_their_pairs_or_contradict(
    frozen: Datasets, manifest: PluginManifest, tmp_path: Path
) -> None:
    folder = images(tmp_path / "femur", "a.png", "c.png", "d.png")
    (folder / "b.png").write_bytes(tiny_png(str(folder / "a.png"), comment="only the header differs"))
    rest = [(f"{name}.png", "where?", name) for name in "cd"]
    pairwise(folder, ("a.png", "where?", "left"), ("b.png", "whole?", "yes"), *rest)
    dataset = frozen.freeze(manifest, folder, "ada")
    assert sorted(len(example.pairs) for example in dataset.examples) == [1, 1, 2]
    pairwise(folder, ("a.png", "where?", "left"), ("b.png", "where?", "right"), *rest)
    with pytest.raises(DatasetError, match="are the same image with contradicting answers to “where\\?”"):
        frozen.freeze(manifest, folder, "ada")


def test_two_images_are_too_few(frozen: Datasets, manifest: PluginManifest, tmp_path: Path) -> None:
    checked = frozen.check(manifest, labelled(tmp_path / "femur", 2))
    assert checked.problems == (
        "There are images of 2 patients only; at least 3 are needed, to learn from, to validate and to test, each on "
        "another one.",
    )
    assert (checked.images, checked.pairs, checked.parts) == (2, 16, ())


def test_a_folder_of_conditions_is_checked_too(frozen: Datasets, school: School, tmp_path: Path) -> None:
    conditions = tiny_learner.manifest()
    images(tmp_path / "d", *(f"{kind}/{n}.png" for kind in ("normal", "pneumonia") for n in range(6)))
    checked = frozen.check(conditions, tmp_path / "d")
    assert (checked.problems, checked.images, checked.pairs, checked.category) == ((), 12, 0, "")
    assert sum(checked.patients.values()) == 12
    assert left_behind(school) == []
    assert checked.parts == frozen.notes(frozen.freeze(conditions, tmp_path / "d", "ada").dataset_id)[:3]
    nowhere = frozen.check(conditions, tmp_path / "nowhere")
    assert isinstance(nowhere, Checked)
    assert "is not a folder" in nowhere.problems[0]


def test_the_digest_covers_pairs_and_category_and_leaves_older_ones_as_they_were() -> None:
    one = Example(path="", sha256="a" * 64, patient_key="p", labels={"a": 1}, split="train")
    assert digest_of([one]) == "17e60cda64c01c114b933fd742a4417e6add9f00de4e8adc7095399b34570552"
    pair = QuestionAnswer(question="where?", answer="left")
    asked = one.model_copy(update={"pairs": (pair,)})
    other = one.model_copy(update={"pairs": (pair.model_copy(update={"answer": "right"}),)})
    digests = [digest_of([one]), digest_of([asked]), digest_of([other]), digest_of([asked], "femur")]
    assert len(set(digests)) == 4


def test_a_run_starts_from_the_base_and_from_no_adapter(
    school: School, manifest: PluginManifest, tmp_path: Path
) -> None:
    for slot in ("base", "femur", "main"):
        write_model(tmp_path / slot, 1.0, name=slot, slot=slot)
        school.registry.import_directory(tmp_path / slot, "ada")
        school.registry.promote("tiny", slot, "1", "ada")
    run = school.runs.wait(school.runs.start("tiny", labelled(tmp_path / "femur-images" / "femur"), {}, "ada"), 60)
    assert run.plan is not None
    assert run.plan["base"]["slot"] == "base"
