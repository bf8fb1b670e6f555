"""Who is in which part, and what would leak from one part into another."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
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

    What would leak of patients with signed images is left out: nobody could change what was signed. In a folder alone
    it is a problem.
    """
    names = _names(images, past)
    kept = _without_torn(images, names, past, reading)
    people = who_is_who((item.sha256, names[item.sha256]) for item in kept)
    known = {key: next(iter(parts)) for key, parts in people.parts(past.splits).items() if len(parts) == 1}
    if folder.filled:
        splits = filled_splits(past.key, plugin, people.names_of, known)
    else:
        splits = {key: known.get(key) or split_of(past.key, plugin, key) for key in people.names_of}
    found = Parted(kept, people, splits)
    for item in kept:
        was = past.placed(item)
        if was is not None and was.split != found.split(item):
            reading.problems.append(
                f"{item.image.name} would be in {found.split(item)}; with another patient it is in {was.split} "
                f"of the dataset {was.dataset_id}."
            )
    return found


def _without_torn(
    images: Sequence[HashedImage], names: Mapping[str, Sequence[Name]], past: Past, reading: Reading
) -> list[HashedImage]:
    """Return the images of patients whom earlier datasets have in one part at most."""
    people = who_is_who((item.sha256, names[item.sha256]) for item in images)
    torn = {key for key, parts in people.parts(past.splits).items() if len(parts) > 1}
    signed = {people.key_of[item.sha256] for item in images if item.image.review_id}
    left = [item for item in images if people.key_of[item.sha256] in torn & signed]
    reading.leave_out(
        LeftOutReason.LEAK,
        len(left),
        f"{counted(len(left), 'image', 'was', 'were')} left out: earlier datasets know their patient under two names, "
        f"in different parts{named([item.image.name for item in left])}.",
    )
    reading.problems += [
        f"{item.image.name} is of a patient whom earlier datasets know under two names, in different parts; take the "
        "images of this patient away."
        for item in images
        if people.key_of[item.sha256] in torn - signed
    ]
    return [item for item in images if people.key_of[item.sha256] not in torn]


def _names(images: Sequence[HashedImage], past: Past) -> dict[str, list[Name]]:
    """Return the names of whose image each is, one at least."""
    tell = _telling_headers(images, past)
    return {item.sha256: [*_names_given(item, past), *_names_of_headers(item, past, tell)] for item in images}


def _names_given(item: HashedImage, past: Past) -> Iterator[Name]:
    for one in item.all:
        image = one.image
        if image.patient_key:
            yield Name(Telling.STUDY, image.patient_key)
        elif image.patient_id:
            yield Name(Telling.FOLDER, patient_key(past.key, image.patient_id))
            yield Name(Telling.SPELLING, patient_key(past.key, f"spelt {_plain(image.patient_id)}"))
        if image.patient_key or not image.patient_id:
            # By its content: a renamed copy must not change the split.
            yield Name(Telling.IMAGE, patient_key(past.key, f"image {one.original}"))
    was = past.placed(item) if item.image.review_id else None
    if was is not None:
        yield Name(Telling.EARLIER, was.patient_key)


def _plain(patient_id: str) -> str:
    """Return a patient's name without what is only written otherwise: case, width, accents, spaces, hidden signs."""
    seen = (c for c in unicodedata.normalize("NFKC", patient_id) if unicodedata.category(c) != "Cf")
    return " ".join("".join(seen).casefold().split())


def _names_of_headers(item: HashedImage, past: Past, tell: Collection[str]) -> Iterator[Name]:
    for pseudonym in {one.pseudonym for one in item.all} & set(tell):
        yield Name(Telling.HEADER, _header_key(past, pseudonym))


def _telling_headers(images: Sequence[HashedImage], past: Past) -> frozenset[str]:
    """Return the pseudonyms of headers that tell a patient.

    Those of reviewed studies do: the appliance knows the patients of its studies by them. In a folder it is one that a
    single named patient bears, and of images without a name one that is known; else it may say no more than that
    somebody removed the identity, and all such images would be one patient.
    """
    studies: set[str] = set()
    folders: dict[str, set[str]] = defaultdict(set)
    for one in (one for item in images for one in item.all if one.pseudonym):
        if one.image.patient_key:
            studies.add(one.pseudonym)
        elif one.image.patient_id or _header_key(past, one.pseudonym) in past.splits:
            folders[one.pseudonym].add(one.image.patient_id)
    return frozenset(studies | {pseudonym for pseudonym, names in folders.items() if len(names - {""}) <= 1})


def _header_key(past: Past, pseudonym: str) -> str:
    return patient_key(past.key, f"header {pseudonym}")
