"""Frozen datasets: both forms of a folder, every problem at once, and a split that never changes for a patient."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
import tiny_learner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from school import School, tiny_png

from clinic_ai.contract import Beside, Dataset, Example
from clinic_ai.domain import new_id
from clinic_ai.errors import DatasetError, NotFound
from clinic_ai.home import init_home
from clinic_ai.store import audit, meta
from clinic_ai.store.database import Database
from clinic_ai.training import datasets as module
from clinic_ai.training import splits
from clinic_ai.training.checking import counts_of
from clinic_ai.training.datasets import Datasets, digest_of
from clinic_ai.training.labelled_folder import read_folder
from clinic_ai.training.splits import split_of

TINY = tiny_learner.manifest()


def image(path: Path, number: int | str) -> Path:
    """Write a PNG, each number another one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tiny_png(str(number)))
    return path


def table(directory: Path, rows: Iterable[str], header: str = "file,patient_id,pneumonia") -> Path:
    """Write labels.csv."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "labels.csv").write_text("\n".join([header, *rows]) + "\n")
    return directory


def patients(directory: Path, count: int) -> Path:
    """Write a table of ``count`` patients with two images each."""
    rows = []
    for number in range(count):
        for side in "ab":
            image(directory / f"{number}{side}.png", f"{number}{side}")
            rows.append(f"{number}{side}.png,PAT-{number},{number % 2}")
    return table(directory, rows)


@pytest.fixture
def frozen(school: School) -> Datasets:
    return school.runs.datasets


class TestForms:
    def test_a_table(self, frozen: Datasets, tmp_path: Path) -> None:
        folder = tmp_path / "d"
        for number in range(3):
            image(folder / "sub" / f"{number}.png", number)
        header = "file,patient_id,pneumonia,cardiomegaly"
        dataset = frozen.freeze(
            TINY, table(folder, ["sub/0.png,A,1,0", "sub/1.png,A,0,", "sub/2.png,B,,1"], header), "ada"
        )
        assert sorted(sorted(e.labels.items()) for e in dataset.examples) == [
            [("cardiomegaly", 0), ("pneumonia", 1)],
            [("cardiomegaly", 1)],
            [("pneumonia", 0)],
        ]
        assert len({e.patient_key for e in dataset.examples}) == 2
        assert "PAT" not in dataset.model_dump_json()

    def test_folders_of_positive_and_negative(self, frozen: Datasets, tmp_path: Path) -> None:
        image(tmp_path / "d" / "pneumonia" / "positive" / "a.png", 1)
        image(tmp_path / "d" / "pneumonia" / "negative" / "b.png", 2)
        image(tmp_path / "d" / "cardiomegaly" / "1" / "patient7" / "c.png", 3)
        image(tmp_path / "d" / "cardiomegaly" / "0" / "patient7" / "d.png", 4)
        dataset = frozen.freeze(TINY, tmp_path / "d", "ada")
        assert sorted(str(e.labels) for e in dataset.examples) == [
            "{'cardiomegaly': 0}",
            "{'cardiomegaly': 1}",
            "{'pneumonia': 0}",
            "{'pneumonia': 1}",
        ]
        hearts = {e.patient_key for e in dataset.examples if "cardiomegaly" in e.labels}
        assert len(hearts) == 1
        assert any("2 images have no patient" in note for note in dataset.notes)

    def test_folders_of_classes_with_a_normal_one(self, frozen: Datasets, tmp_path: Path) -> None:
        image(tmp_path / "d" / "pneumonia" / "a.png", 1)
        image(tmp_path / "d" / "cardiomegaly" / "b.png", 2)
        image(tmp_path / "d" / "normal" / "c.png", 3)
        (tmp_path / "d" / "normal" / "Thumbs.db").write_bytes(b"rubbish")
        (tmp_path / "d" / "normal" / ".hidden").touch()
        (tmp_path / "d" / "pneumonia" / "patient7").mkdir()
        (tmp_path / "d" / "pneumonia" / "patient7" / "empty.png").touch()
        dataset = frozen.freeze(TINY, tmp_path / "d", "ada")
        assert sorted(str(e.labels) for e in dataset.examples) == [
            "{'cardiomegaly': 0, 'pneumonia': 0}",
            "{'cardiomegaly': 1}",
            "{'pneumonia': 1}",
        ]
        assert "1 file was left out, neither PNG, JPEG nor DICOM: normal/Thumbs.db." in dataset.notes
        assert "1 file was left out, empty: pneumonia/patient7/empty.png." in dataset.notes

    def test_dicom_and_jpeg_are_known_by_content(self, tmp_path: Path) -> None:
        folder = tmp_path / "pneumonia"
        folder.mkdir()
        (folder / "a").write_bytes(b"\0" * 128 + b"DICM" + b"...")
        (folder / "b.txt").write_bytes(b"\xff\xd8\xff\xe0")
        assert {i.name for i in read_folder(tmp_path, ["pneumonia"]).images} == {"pneumonia/a", "pneumonia/b.txt"}


class TestFrozen:
    def test_later_changes_of_the_folder_change_nothing(self, frozen: Datasets, tmp_path: Path) -> None:
        folder = patients(tmp_path / "d", 4)
        dataset = frozen.freeze(TINY, folder, "ada")
        (folder / "0a.png").write_bytes(b"changed")
        (folder / "1a.png").unlink()
        again = frozen.get(dataset.dataset_id)
        assert again == dataset
        assert all(Path(e.path).is_absolute() for e in again.examples)
        assert {Path(e.path).read_bytes() for e in again.examples} == {
            tiny_png(f"{n}{s}") for n in range(4) for s in "ab"
        }

    def test_the_same_content_is_the_same_dataset(self, frozen: Datasets, tmp_path: Path) -> None:
        first = frozen.freeze(TINY, patients(tmp_path / "one", 4), "ada")
        second = frozen.freeze(TINY, patients(tmp_path / "two", 4), "ada")
        assert (first.dataset_id, first.digest) == (second.dataset_id, second.digest)
        third = frozen.freeze(TINY, patients(tmp_path / "three", 5), "ada")
        assert third.digest != first.digest
        assert [view.dataset_id for view in frozen.list_datasets()] == [third.dataset_id, first.dataset_id]
        assert sum(frozen.list_datasets()[0].images.values()) == 10
        assert sum(frozen.list_datasets()[0].patients.values()) == 5

    def test_a_damaged_image_is_found(self, frozen: Datasets, tmp_path: Path) -> None:
        dataset = frozen.freeze(TINY, patients(tmp_path / "d", 3), "ada")
        victim = Path(dataset.examples[0].path)
        victim.chmod(0o640)
        victim.write_bytes(b"x")
        with pytest.raises(DatasetError, match="1 of 6 images"):
            frozen.get(dataset.dataset_id)
        victim.unlink()
        with pytest.raises(DatasetError, match="1 of 6 images"):
            frozen.get(dataset.dataset_id)

    def test_freezing_is_audited(self, school: School, frozen: Datasets, tmp_path: Path) -> None:
        frozen.freeze(TINY, patients(tmp_path / "d", 3), "ada")
        with school.database.read() as connection:
            assert audit.first_break(connection) is None
        with pytest.raises(NotFound):
            frozen.get("D-none")

    def test_the_parts_are_told_by_images_patients_and_classes(self, frozen: Datasets, tmp_path: Path) -> None:
        dataset = frozen.freeze(TINY, patients(tmp_path / "d", 4), "ada")
        counts = frozen.notes(dataset.dataset_id)[:3]
        assert [line.split(":")[0] for line in counts] == ["train", "validation", "test"]
        for line in counts:
            split = line.split(":")[0]
            here = [e for e in dataset.examples if e.split == split]
            ill = [e for e in here if e.labels["pneumonia"] == 1]
            assert f" {len(here)} images of {len({e.patient_key for e in here})} patient" in line
            assert not here or f"pneumonia in {len(ill)} images of" in line

    def test_counts_are_by_condition(self) -> None:
        rows = [("p", {"a": 1, "b": 0}), ("p", {"a": 1}), ("q", {"a": 0})]
        examples = [
            Example(path="", sha256=f"{n:064x}", patient_key=who, labels=labels, split="train")
            for n, (who, labels) in enumerate(rows)
        ]
        assert counts_of(examples) == [
            "train: 3 images of 2 patients; a in 2 images of 1 patient, not in 1 image of 1 patient; "
            "b in 0 images of 0 patients, not in 1 image of 1 patient.",
            "validation: 0 images of 0 patients.",
            "test: 0 images of 0 patients.",
        ]
        beside = (Beside(role="report", path="", sha256="b" * 64),)
        volumes = [examples[0].model_copy(update={"beside": beside}), *examples[1:]]
        assert counts_of(volumes)[0].startswith("train: 3 volumes of 2 patients; a in 2 volumes of 1 patient, not in 1")

    def test_what_does_not_fit_into_a_frame_is_refused(
        self, frozen: Datasets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "MAX_DOCUMENT_BYTES", 1000)
        with pytest.raises(DatasetError, match="has 8 images; this version takes about"):
            frozen.freeze(TINY, patients(tmp_path / "d", 4), "ada")
        assert frozen.list_datasets() == []

    def test_groups_are_left_out_where_more_images_fit_without_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        one = Example(
            path="", sha256="a" * 64, patient_key="p", labels={"a": 1}, split="test", groups={"sex": "F" * 500}
        )
        dataset = Dataset(dataset_id="D-1", plugin="tiny", digest=digest_of([one]), examples=(one,), notes=("first",))
        assert module._fitting(dataset) == dataset
        monkeypatch.setattr(module, "MAX_DOCUMENT_BYTES", 800)
        smaller = module._fitting(dataset)
        assert (smaller.digest, smaller.examples[0].groups) == (dataset.digest, {})
        assert digest_of(smaller.examples) == dataset.digest
        assert smaller.notes[0] == "first"
        assert smaller.notes[1].startswith("Sex, age group and station of the images were left out")

    def test_the_digest_does_not_depend_on_order(self) -> None:
        one = Example(path="", sha256="a" * 64, patient_key="p", labels={"a": 1, "b": 0}, split="train")
        two = Example(path="/x", sha256="b" * 64, patient_key="q", labels={"a": 1}, split="test")
        twin = one.model_copy(update={"labels": {"b": 0, "a": 1}})
        assert digest_of([one, two]) == digest_of([two, twin])
        assert digest_of([one, two]) != digest_of([one, two.model_copy(update={"split": "train"})])


class TestProblems:
    def _problems(self, frozen: Datasets, folder: Path) -> str:
        with pytest.raises(DatasetError) as error:
            frozen.freeze(TINY, folder, "ada")
        assert error.value.remedy
        assert frozen.list_datasets() == []
        return error.value.message

    def test_every_problem_of_a_table_is_named_at_once(self, frozen: Datasets, tmp_path: Path) -> None:
        folder = tmp_path / "d"
        for number in range(4):
            image(folder / f"{number}.png", number)
        image(folder / "copy.png", 0)
        (folder / "text.png").write_text("no image")
        (folder / "empty.png").touch()
        (folder / "link.png").symlink_to(folder / "0.png")
        image(tmp_path / "outside.png", 9)
        rows = [
            "0.png,A,1",
            "1.png,,1",
            "2.png,B,maybe",
            "missing.png,C,0",
            "../outside.png,C,0",
            "text.png,C,0",
            "link.png,C,0",
            "3.png,D,",
            "copy.png,A,0",
            "3.png,D,0,1",
            "empty.png,D,0",
        ]
        message = self._problems(frozen, table(folder, rows))
        for expected in (
            "Line 3 of labels.csv (1.png) has no patient_id.",
            "Line 4 of labels.csv (2.png) has 'maybe' for pneumonia; write 0, 1 or nothing.",
            "missing.png cannot be read: No such file or directory.",
            "Line 6 of labels.csv names no file inside the folder.",
            "text.png is neither PNG, JPEG nor DICOM.",
            "link.png cannot be read",
            "Line 9 of labels.csv (3.png) has no label.",
            "0.png and copy.png are the same image with contradicting labels for pneumonia.",
            "(3.png) has more cells than the header.",
            "Line 12 of labels.csv: empty.png is empty.",
        ):
            assert expected in message

    @pytest.mark.parametrize(
        ("header", "reason"),
        [
            ("file,pneumonia", "lacks the column patient_id"),
            ("file,patient_id,gout", "has the column(s) gout; the plugin knows pneumonia, cardiomegaly"),
            ("file,patient_id", "no column of a condition"),
            ("file,patient_id,pneumonia,pneumonia", "a column twice"),
            ("", "lacks the column file"),
        ],
    )
    def test_a_wrong_header(self, frozen: Datasets, tmp_path: Path, header: str, reason: str) -> None:
        assert reason in self._problems(frozen, table(tmp_path / "d", ["a.png,A,1"], header))

    def test_a_table_that_is_none(self, frozen: Datasets, tmp_path: Path) -> None:
        (tmp_path / "labels.csv").write_bytes(b'file,patient_id,pneumonia\n"a,b\xff')
        assert "not a table" in self._problems(frozen, tmp_path)

    def test_folders(self, frozen: Datasets, tmp_path: Path) -> None:
        folder = tmp_path / "d"
        folder.mkdir()
        assert "neither a labels.csv nor a folder" in self._problems(frozen, folder)
        image(folder / "gout" / "a.png", 1)
        (folder / "pneumonia").mkdir()
        message = self._problems(frozen, folder)
        assert "The folder gout is no condition of this plugin (it knows: pneumonia, cardiomegaly)." in message
        assert "The folder pneumonia holds no image." in message
        with pytest.raises(DatasetError, match="not a folder"):
            frozen.freeze(TINY, folder / "nowhere", "ada")

    def test_only_normal_images_or_only_one_patient(self, frozen: Datasets, tmp_path: Path) -> None:
        image(tmp_path / "n" / "normal" / "a.png", 1)
        assert "only folders of normal images" in self._problems(frozen, tmp_path / "n")
        for number in range(3):
            image(tmp_path / "p" / "pneumonia" / "anna" / f"{number}.png", number)
        assert "All images (3) are of one patient" in self._problems(frozen, tmp_path / "p")

    def test_one_image_of_two_patients(self, frozen: Datasets, tmp_path: Path) -> None:
        image(tmp_path / "d" / "a.png", 1)
        image(tmp_path / "d" / "b.png", 1)
        folder = table(tmp_path / "d", ["a.png,A,1", "b.png,B,1"])
        assert "a.png and b.png are the same image of two patients." in self._problems(frozen, folder)

    def test_an_image_that_has_another_split_in_an_older_dataset(self, frozen: Datasets, tmp_path: Path) -> None:
        # Forty images given to forty other patients: some of them draw another split.
        first, second = tmp_path / "1", tmp_path / "2"
        rows: tuple[list[str], list[str]] = ([], [])
        for number in range(40):
            for at, folder in enumerate((first, second)):
                image(folder / f"{number}.png", number)
                rows[at].append(f"{number}.png,{'AB'[at]}{number},1")
        frozen.freeze(TINY, table(first, rows[0]), "ada")
        with pytest.raises(DatasetError, match="with another patient it is in"):
            frozen.freeze(TINY, table(second, rows[1]), "ada")

    def test_an_image_in_two_classes(self, frozen: Datasets, tmp_path: Path) -> None:
        image(tmp_path / "d" / "pneumonia" / "a.png", 1)
        image(tmp_path / "d" / "normal" / "b.png", 1)
        image(tmp_path / "d" / "normal" / "c.png", 2)
        message = self._problems(frozen, tmp_path / "d")
        assert "has 1 problem:" in message
        assert "normal/b.png and pneumonia/a.png are the same image with contradicting labels" in message

    def test_equal_images_with_equal_labels_are_one(self, frozen: Datasets, tmp_path: Path) -> None:
        for name, number in (("a", 1), ("b", 1), ("c", 2)):
            image(tmp_path / "d" / f"{name}.png", number)
        folder = table(tmp_path / "d", ["a.png,A,1", "b.png,A,1", "c.png,B,0"])
        dataset = frozen.freeze(TINY, folder, "ada")
        assert len(dataset.examples) == 2
        assert any("1 image was left out" in note for note in dataset.notes)


class TestSplit:
    def test_shares_are_near_what_is_promised(self) -> None:
        drawn = [split_of(b"k" * 32, "tiny", f"{n:064x}") for n in range(4000)]
        assert abs(drawn.count("train") / 4000 - 0.70) < 0.03
        assert abs(drawn.count("validation") / 4000 - 0.15) < 0.03

    def test_splits_of_two_sites_or_plugins_are_independent(self) -> None:
        keys = [f"{n:064x}" for n in range(200)]
        one = [split_of(b"a" * 32, "tiny", key) for key in keys]
        assert one != [split_of(b"b" * 32, "tiny", key) for key in keys]
        assert one != [split_of(b"a" * 32, "other", key) for key in keys]

    @settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        groups=st.lists(st.lists(st.integers(0, 30), min_size=2, max_size=8, unique=True), min_size=2, max_size=4),
        share=st.floats(0.05, 0.9),
    )
    def test_a_patient_never_changes_split(
        self, frozen: Datasets, tmp_path_factory: pytest.TempPathFactory, groups: list[list[int]], share: float
    ) -> None:
        place = tmp_path_factory.mktemp("groups")
        # A plugin of its own for each example: the splits of the others are not in the way.
        plugin = TINY.model_copy(update={"name": new_id("p").lower().replace("-", "_")})
        seen: dict[str, str] = {}
        with pytest.MonkeyPatch.context() as patch:
            for turn, group in enumerate(groups):
                folder = place / str(turn)
                rows = [f"{n}.png,P{n},1" for n in group]
                for n in group:
                    image(folder / f"{n}.png", f"{n}-{turn}")
                self._agrees(frozen.freeze(plugin, table(folder, rows), "ada"), seen)
                # Even if the shares were changed later on: the table remembers.
                patch.setattr(splits, "TRAIN_SHARE", share)

    def _agrees(self, dataset: Dataset, seen: dict[str, str]) -> None:
        for example in dataset.examples:
            assert seen.setdefault(example.patient_key, example.split) == example.split

    def test_patient_keys_are_keyed(self, tmp_path: Path) -> None:
        keys = set()
        for name in "ab":
            database = Database(init_home(tmp_path / name).database)
            database.open()
            with database.write() as connection:
                keys.add(meta.patient_key(meta.site_key(connection), "PAT-1"))
            database.close()
        assert len(keys) == 2
