"""Who is in which part, and what would leak from one part into another."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from clinic_ai.domain import LeftOutReason
from clinic_ai.store.datasets import Placed, Split
from clinic_ai.store.meta import patient_key
from clinic_ai.training.clean_images import HashedImage
from clinic_ai.training.label_reading import LabelFolder
from clinic_ai.training.labelled_folder import Reading, counted, named
from clinic_ai.training.people import Name, People, Telling, who_is_who
from clinic_ai.training.splits import filled_splits, split_of


@dataclass(frozen=True)
class Past:
    """What earlier datasets of a plugin settled: the part of every name of a patient, and of every image."""

    key: bytes
    """That of this site."""
    splits: Mapping[str, Split]
    images: Mapping[str, Placed]

    def placed(self, item: HashedImage) -> Placed | None:
        """Return where an image is already; datasets of older versions hold the originals."""
        return self.images.get(item.sha256) or self.images.get(item.original)


@dataclass(frozen=True)
class Parted:
    """The images that may be learned from, whose they are, and the part of each patient."""

    images: list[HashedImage]
    people: People
    splits: dict[str, Split]

    def patient(self, item: HashedImage) -> str:
        """Return the patient key of an image."""
        return self.people.key_of[item.sha256]

    def split(self, item: HashedImage) -> Split:
        """Return the part that an image is in."""
        return self.splits[self.patient(item)]

    def fresh(self, known: Collection[str]) -> dict[str, Split]:
        """Return the part of each name that had none."""
        names = ((name, part) for key, part in self.splits.items() for name in self.people.names_of[key])
        return {name: part for name, part in names if name not in known}


def part(plugin: str, folder: LabelFolder, images: Sequence[HashedImage], past: Past, reading: Reading) -> Parted:
    """Return who is in which part; whoever has one stays there.

    A signed image that would leak is left out: nobody could change what was signed. In a folder it is a problem.
    """
    everybody = who_is_who((item.sha256, names_of(item, past)) for item in images)
    torn = {key for key, parts in everybody.parts(past.splits).items() if len(parts) > 1}
    kept, left = [], []
    for item in images:
        if everybody.key_of[item.sha256] not in torn:
            kept.append(item)
        elif _signed(item):
            left.append(item.image.name)
        else:
            reading.problems.append(
                f"{item.image.name} is of a patient whom earlier datasets know under two names, in different parts; "
                "take the images of this patient away."
            )
    found = _placed(plugin, folder, kept, past)
    for item in kept:
        was = past.placed(item)
        if was is not None and was.split != found.split(item):
            reading.problems.append(
                f"{item.image.name} would be in {found.split(item)}; with another patient it is in {was.split} "
                f"of the dataset {was.dataset_id}."
            )
    reading.leave_out(
        LeftOutReason.LEAK,
        len(left),
        f"{counted(len(left), 'image', 'was', 'were')} left out: earlier datasets have the image or its patient in "
        f"different parts{named(left)}.",
    )
    return found


def names_of(item: HashedImage, past: Past) -> list[Name]:
    """Return the names of whose image it is, by all that equal images say; one at least."""
    names = []
    for one in item.all:
        image = one.image
        if image.patient_key:
            names.append(Name(Telling.STUDY, image.patient_key))
        elif image.patient_id:
            names.append(Name(Telling.FOLDER, patient_key(past.key, image.patient_id)))
        if image.patient_key or not image.patient_id:
            # By its content: a renamed copy must not change the split.
            names.append(Name(Telling.IMAGE, patient_key(past.key, f"image {one.original}")))
    was = past.placed(item) if _signed(item) else None
    return [*names, Name(Telling.EARLIER, was.patient_key)] if was else names


def _placed(plugin: str, folder: LabelFolder, images: Sequence[HashedImage], past: Past) -> Parted:
    people = who_is_who((item.sha256, names_of(item, past)) for item in images)
    known = {key: next(iter(parts)) for key, parts in people.parts(past.splits).items() if len(parts) == 1}
    if folder.category is None:
        splits = {key: known.get(key) or split_of(past.key, plugin, key) for key in people.names_of}
    else:
        splits = filled_splits(past.key, plugin, people.names_of, known)
    return Parted(list(images), people, splits)


def _signed(item: HashedImage) -> bool:
    return bool(item.image.review_id)
