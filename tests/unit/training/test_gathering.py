"""Signed reviews and labelled folders together: what counts, who is who, and what is new since."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_learner
from reviewed import reviewed
from scans import write_ct_slice
from school import School, tiny_png

from clinic_ai.domain import Presence
from clinic_ai.errors import DatasetError, NotFound
from clinic_ai.store import datasets as store
from clinic_ai.store.meta import patient_key, site_key
from clinic_ai.training import sources as module
from clinic_ai.training.datasets import Datasets

TINY = tiny_learner.manifest()
BOTH = ("reviews", "labels")


@pytest.fixture
def frozen(school: School) -> Datasets:
    return school.runs.datasets


@pytest.fixture
def drop(school: School) -> Callable[..., Path]:
    """Write a labelled image into labels/tiny; return its path."""

    def write(text: str, present: bool, patient: str) -> Path:
        side = "positive" if present else "negative"
        path = school.home.labels / "tiny" / "pneumonia" / side / patient / f"{text.replace(' ', '_')}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tiny_png(text))
        return path

    return write


def test_both_make_one_dataset_that_says_where_it_comes_from(
    school: School, frozen: Datasets, drop: Callable[..., Path]
) -> None:
    _, first = reviewed(school, 1)
    _, second = reviewed(school, 2, Presence.ABSENT)
    drop("other", True, "anna")
    dataset = frozen.gather(TINY, BOTH, "ada")
    assert len(dataset.examples) == 3
    with school.database.read() as c:
        lineage = store.lineage_of(c, dataset.dataset_id)
    assert lineage.reviews == tuple(sorted((first, second)))
    assert [(folder.path, folder.given_by) for folder in lineage.folders] == [(str(school.home.labels / "tiny"), "ada")]
    assert (lineage.images, lineage.parents) == ({"reviews": 2, "labels": 1}, ())
    drop("one more", False, "bert")
    later = frozen.gather(TINY, BOTH, "ada")
    with school.database.read() as c:
        assert store.lineage_of(c, later.dataset_id).parents == (dataset.dataset_id,)


def test_a_signed_review_counts_before_the_folder(school: School, frozen: Datasets, drop: Callable[..., Path]) -> None:
    reviewed(school, 1, Presence.PRESENT)
    reviewed(school, 2, Presence.ABSENT)
    drop("reviewed 1", False, "anna")  # another opinion of an image that was reviewed
    drop("reviewed 2", False, "bert")
    dataset = frozen.gather(TINY, BOTH, "ada")
    labels = {example.patient_key: example.labels["pneumonia"] for example in dataset.examples}
    assert labels == {f"{1:064x}": 1, f"{2:064x}": 0}
    assert any("signed review" in note and "the review counts" in note for note in dataset.notes)
    with school.database.read() as c:
        left = store.lineage_of(c, dataset.dataset_id).left_out
    assert {(one.reason.value, one.count) for one in left} == {("overruled", 1), ("duplicate", 1)}


def test_labels_that_contradict_each_other_in_the_folder_are_a_problem_still(
    school: School, frozen: Datasets, drop: Callable[..., Path]
) -> None:
    reviewed(school, 1)
    reviewed(school, 2)
    drop("reviewed 1", False, "anna")
    drop("reviewed 1", True, "anna")
    with pytest.raises(DatasetError, match="same image with contradicting labels for pneumonia"):
        frozen.gather(TINY, BOTH, "ada")


def test_the_images_of_a_folder_go_with_the_patient_that_a_review_names(
    school: School, frozen: Datasets, drop: Callable[..., Path]
) -> None:
    for number in range(1, 9):
        reviewed(school, number)
        drop(f"reviewed {number}", True, f"patient {number}")
        drop(f"unreviewed {number}", True, f"patient {number}")
    dataset = frozen.gather(TINY, BOTH, "ada")
    assert len(dataset.examples) == 16
    assert {example.patient_key for example in dataset.examples} == {f"{number:064x}" for number in range(1, 9)}
    before = {example.sha256: example.split for example in dataset.examples}
    folder = frozen.gather(TINY, ("labels",), "ada")  # the names of the folder are known from then on
    reviews = frozen.gather(TINY, ("reviews",), "ada")
    assert all(before[example.sha256] == example.split for example in (*folder.examples, *reviews.examples))


def test_of_two_reviews_the_newest_counts_and_an_image_of_two_patients_is_left_out(
    school: School, frozen: Datasets
) -> None:
    reviewed(school, 1, Presence.PRESENT, image=tiny_png("same"), patient_key="a" * 64)
    reviewed(school, 2, Presence.ABSENT, image=tiny_png("same"), patient_key="a" * 64)
    reviewed(school, 3, image=tiny_png("torn"))
    reviewed(school, 4, image=tiny_png("torn"))
    reviewed(school, 5)
    dataset = frozen.gather(TINY, ("reviews",), "ada")
    assert {e.patient_key: e.labels["pneumonia"] for e in dataset.examples} == {"a" * 64: 0, f"{5:064x}": 1}
    assert any("reviewed studies give the same image to two patients" in note for note in dataset.notes)


def test_a_name_that_adds_nothing_else_is_known_from_then_on(
    school: School, frozen: Datasets, drop: Callable[..., Path]
) -> None:
    for number in range(1, 21):
        reviewed(school, number)
    first = frozen.gather(TINY, ("reviews",), "ada")
    for number in range(1, 21):
        drop(f"reviewed {number}", True, f"folder {number}")
    assert frozen.gather(TINY, BOTH, "bert").dataset_id == first.dataset_id
    with school.database.read() as c:
        assert [folder.given_by for folder in store.lineage_of(c, first.dataset_id).folders] == ["bert"]
    for number in range(1, 21):
        drop(f"reviewed {number}", True, f"folder {number}").unlink()
        drop(f"new {number}", True, f"folder {number}")
    splits = {example.patient_key: example.split for example in first.examples}
    later = frozen.gather(TINY, ("labels",), "ada")  # without the images that both names share
    with school.database.write() as c:
        names = {patient_key(site_key(c), f"folder {number}"): f"{number:064x}" for number in range(1, 21)}
    assert len(later.examples) == 20
    assert all(splits[names[example.patient_key]] == example.split for example in later.examples)


def test_one_patient_is_said_in_a_sentence(school: School, frozen: Datasets) -> None:
    reviewed(school, 1)
    with pytest.raises(DatasetError, match="of one patient; nothing could be validated on another") as error:
        frozen.gather(TINY, BOTH, "ada")
    assert error.value.message.startswith("The signed reviews have 1 problem: ")
    with pytest.raises(DatasetError, match="nothing to learn from"):
        frozen.gather(TINY, (), "ada")


class TestFresh:
    def test_what_was_looked_at_is_not_new(self, school: School, frozen: Datasets, drop: Callable[..., Path]) -> None:
        for number in range(1, 4):
            reviewed(school, number)
        drop("other", True, "anna")
        drop("reviewed 1", False, "bert")
        assert frozen.fresh(TINY, BOTH) == 4
        assert frozen.fresh(TINY, ("reviews",)) == 3
        dataset = frozen.gather(TINY, BOTH, "ada")
        assert frozen.fresh(TINY, BOTH, since=dataset.dataset_id) == 0
        drop("one more", True, "anna")
        reviewed(school, 5)
        assert frozen.fresh(TINY, BOTH, since=dataset.dataset_id) == 2
        assert frozen.fresh(TINY, ("labels",), since=dataset.dataset_id) == 1
        with pytest.raises(NotFound, match="no dataset D-none"):
            frozen.fresh(TINY, BOTH, since="D-none")

    def test_another_label_is_new(self, school: School, frozen: Datasets, drop: Callable[..., Path]) -> None:
        drop("first", True, "anna")
        drop("third", False, "anna")
        path = drop("second", True, "bert")
        dataset = frozen.gather(TINY, ("labels",), "ada")
        path.rename(school.home.labels / "tiny" / "pneumonia" / "negative" / "anna" / "second.png")
        assert frozen.fresh(TINY, ("labels",), since=dataset.dataset_id) == 1

    def test_a_file_that_did_not_change_is_not_read_again(
        self, frozen: Datasets, drop: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        drop("one", True, "anna")
        second = drop("two", False, "bert")
        assert frozen.fresh(TINY, ("labels",)) == 2
        read: list[int] = []
        hash_descriptor = module.hash_descriptor
        monkeypatch.setattr(module, "hash_descriptor", lambda d: read.append(d) or hash_descriptor(d))
        assert frozen.fresh(TINY, ("labels",)) == 2
        assert read == []
        second.write_bytes(tiny_png("another"))
        assert frozen.fresh(TINY, ("labels",)) == 2
        assert len(read) == 1

    def test_a_dataset_of_an_older_version_tells_by_what_it_holds(
        self, school: School, frozen: Datasets, drop: Callable[..., Path]
    ) -> None:
        for number in range(4):
            drop(f"image {number}", bool(number % 2), f"p{number}")
        dataset = frozen.gather(TINY, ("labels",), "ada")
        with school.database.write() as c:
            c.exec_driver_sql("UPDATE datasets SET lineage = '{}'")
        assert frozen.fresh(TINY, ("labels",), since=dataset.dataset_id) == 0
        drop("image 9", True, "p9")
        assert frozen.fresh(TINY, ("labels",), since=dataset.dataset_id) == 1

    def test_problems_of_the_folder_are_said(self, frozen: Datasets, drop: Callable[..., Path]) -> None:
        path = drop("one", True, "anna")
        (path.parent / "link.png").symlink_to(path)
        with pytest.raises(DatasetError, match=r"has problems, the first of them: link\.png"):
            frozen.fresh(TINY, ("labels",))


def test_the_patient_id_in_a_header_tells_that_a_folder_is_of_a_reviewed_patient(
    school: School, frozen: Datasets, tmp_path: Path
) -> None:
    for number in range(1, 7):
        folder = school.home.labels / "tiny" / "pneumonia" / "positive" / f"visit {number}"
        folder.mkdir(parents=True)
        write_ct_slice(folder / "a.dcm", seed=number, instance=1, side=8)
        write_ct_slice(tmp_path / "b.dcm", seed=number, instance=2, side=9)
        reviewed(school, number, image=(tmp_path / "b.dcm").read_bytes())
    dataset = frozen.gather(TINY, BOTH, "ada")
    assert len(dataset.examples) == 12
    assert {example.patient_key for example in dataset.examples} == {f"{number:064x}" for number in range(1, 7)}


def test_a_folder_called_by_the_patient_id_is_of_that_patient(
    school: School, frozen: Datasets, drop: Callable[..., Path]
) -> None:
    with school.database.write() as c:
        keys = {number: patient_key(site_key(c), f"PAT-{number}") for number in range(4)}
    for number, key in keys.items():
        reviewed(school, number, patient_key=key)
        drop(f"other {number}", True, f"PAT-{number}")
    dataset = frozen.gather(TINY, BOTH, "ada")
    assert len(dataset.examples) == 8
    assert {example.patient_key for example in dataset.examples} == set(keys.values())
