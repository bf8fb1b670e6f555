"""Who is in which part, over any sequence of drops and reviews: nobody ever moves, and no test image is trained on."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from clinic_ai.domain import CategoryInfo
from clinic_ai.store.datasets import Placed, Split
from clinic_ai.training.clean_images import HashedImage
from clinic_ai.training.label_reading import LabelFolder
from clinic_ai.training.labelled_folder import LabelledImage, Reading
from clinic_ai.training.leaks import Parted, Past, part
from clinic_ai.training.people import Name, Telling, who_is_who

KEY = b"k" * 32
CONDITIONS = LabelFolder(Path("d"))
ANSWERS = LabelFolder(Path("d"), CategoryInfo(key="femur", label="Femur"), filled=True)


@dataclass
class Site:
    """The datasets of a plugin as they are frozen one after the other."""

    splits: dict[str, Split] = field(default_factory=dict)
    images: dict[str, Placed] = field(default_factory=dict)
    number: int = 0

    def freeze(self, images: list[HashedImage], folder: LabelFolder = CONDITIONS) -> tuple[Parted, Reading]:
        """Freeze one more, unless there are problems."""
        reading = Reading()
        parted = part("tiny", folder, images, Past(KEY, self.splits, self.images), reading)
        if not reading.problems:
            self.number += 1
            fresh = parted.fresh(self.splits)
            assert not set(fresh) & set(self.splits)
            self.splits |= fresh
            for item in parted.images:
                self.images[item.sha256] = Placed(parted.split(item), f"D-{self.number}", parted.patient(item))
        return parted, reading


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def dropped(image: str, patient: str = "", pseudonym: str = "") -> HashedImage:
    return HashedImage(
        LabelledImage(Path(image), image, patient, {"a": 1}), sha(image), sha(image), pseudonym=pseudonym
    )


def signed(image: str, patient: str, pseudonym: str = "") -> HashedImage:
    labelled = LabelledImage(Path(image), image, "", {"a": 1}, patient_key=sha(patient), review_id="W-1")
    return HashedImage(labelled, sha(image), sha(image), pseudonym=pseudonym)


images = st.integers(0, 12).map(lambda number: f"image {number}")
folders = st.sampled_from(["", "anna", "bert", "carl", "dora"])
headers = st.sampled_from(["", "D-1", "D-2", "D-3"])
anything = st.one_of(
    st.builds(dropped, images, folders, headers),
    st.builds(signed, images, st.sampled_from(["S1", "S2", "S3", "S4"]), headers),
)
drops = st.lists(anything, min_size=1, max_size=10, unique_by=lambda item: item.sha256)


@given(st.lists(st.tuples(drops, st.sampled_from([CONDITIONS, ANSWERS])), min_size=2, max_size=8))
def test_no_image_and_no_name_ever_moves(sequence: list[tuple[list[HashedImage], LabelFolder]]) -> None:
    site, was = Site(), {}
    for images, folder in sequence:
        parted, reading = site.freeze(images, folder)
        if reading.problems:
            continue
        for item in parted.images:
            assert was.setdefault(item.sha256, parted.split(item)) == parted.split(item)
        for key, names in parted.people.names_of.items():
            assert {site.splits[name] for name in names} == {parted.splits[key]}
        left = len(images) - len(parted.images)
        assert sum(reading.left_out.values()) == left


@st.composite
def visits(draw: st.DrawFn) -> list[list[HashedImage]]:
    """Draw datasets of persons whose images bear their id; what a folder calls them changes from one to the next."""
    datasets = []
    for turn in range(draw(st.integers(2, 6))):
        persons = draw(st.lists(st.integers(0, 5), min_size=1, max_size=6, unique=True))
        items: list[HashedImage] = []
        for person in persons:
            for number in draw(st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True)):
                image, pseudonym = f"{person} {number}", f"D-{person}"
                if draw(st.booleans()):
                    items.append(signed(image, f"study {person}", pseudonym))
                else:
                    items.append(dropped(image, f"{turn} {person}", pseudonym))
        datasets.append(items)
    return datasets


@given(visits())
def test_one_person_by_header_folder_and_study_is_in_one_part_for_life(datasets: list[list[HashedImage]]) -> None:
    site, parts = Site(), {}
    for items in datasets:
        parted, reading = site.freeze(items)
        assert not reading.problems
        for item in parted.images:
            assert parts.setdefault(item.pseudonym, parted.split(item)) == parted.split(item)


def test_a_review_under_another_name_joins_the_part_of_the_folder() -> None:
    site = Site()
    first, _ = site.freeze([dropped(f"image {n}", f"folder {n}") for n in range(40)])
    second, reading = site.freeze([signed(f"image {n}", f"study {n}") for n in range(40)])
    assert reading.problems == []
    assert {i.sha256: first.split(i) for i in first.images} == {i.sha256: second.split(i) for i in second.images}
    # From then on the study's patient is known to be that one, whatever image comes.
    third, reading = site.freeze([signed(f"new {n}", f"study {n}") for n in range(40)])
    assert [third.split(i) for i in third.images] == [first.split(i) for i in first.images]


def test_who_turns_out_to_be_one_person_only_later_is_left_out_or_a_problem() -> None:
    site = Site()
    folder, _ = site.freeze([dropped(f"f{n}", f"folder {n}") for n in range(60)])
    study, _ = site.freeze([signed(f"s{n}", f"study {n}") for n in range(60)])
    torn = [n for n in range(60) if folder.split(folder.images[n]) != study.split(study.images[n])]
    assert torn
    both = [dropped(f"x{n}", f"folder {n}", f"D-{n}") for n in range(60)]
    both += [signed(f"y{n}", f"study {n}", f"D-{n}") for n in range(60)]
    parted, reading = site.freeze(both)
    assert reading.problems == []
    assert sum(reading.left_out.values()) == 2 * len(torn)
    assert "under two names, in different parts" in reading.notes[0]
    assert len(parted.images) == 120 - 2 * len(torn)


def test_the_ids_of_a_folder_whose_identity_was_removed_make_nobody_one_patient() -> None:
    site = Site()
    named, _ = site.freeze([dropped(f"a{n}", f"folder {n}", "D-anonymous") for n in range(6)])
    alone, _ = site.freeze([dropped(f"b{n}", "", "D-anonymous") for n in range(6)])
    assert (len(named.splits), len(alone.splits)) == (6, 6)


def test_the_most_telling_name_becomes_the_key_in_whatever_order() -> None:
    pictures = [
        ("1", [Name(Telling.FOLDER, "f"), Name(Telling.IMAGE, "i")]),
        ("2", [Name(Telling.IMAGE, "j"), Name(Telling.STUDY, "s")]),
        ("3", [Name(Telling.IMAGE, "j"), Name(Telling.FOLDER, "f")]),
        ("4", [Name(Telling.FOLDER, "g")]),
    ]
    for order in (pictures, pictures[::-1]):
        people = who_is_who(order)
        assert people.key_of == {"1": "s", "2": "s", "3": "s", "4": "g"}
        assert people.names_of == {"s": ("f", "i", "j", "s"), "g": ("g",)}
        assert Counter(people.key_of.values()) == {"s": 3, "g": 1}


@given(st.permutations(["Müller 7", "Mu\u0308ller 7", "MÜLLER 7", " Müller   7", "Mü\u200bller 7", "Ｍüller 7"]))
def test_a_patient_is_one_however_the_name_is_spelt_and_in_whichever_drop(spellings: list[str]) -> None:
    site, parts = Site(), set()
    for number, spelling in enumerate(spellings):
        parted, reading = site.freeze([dropped(f"image {number}", spelling), dropped(f"other {number}", "Moller 7")])
        assert not reading.problems
        parts.add(parted.split(parted.images[0]))
        assert len(parted.people.names_of) == 2
    assert len(parts) == 1


def test_spellings_in_one_drop_are_one_patient() -> None:
    parted, _ = Site().freeze([dropped("a", "P1"), dropped("b", "p1"), dropped("c", "P2")])
    assert len(parted.people.names_of) == 2
