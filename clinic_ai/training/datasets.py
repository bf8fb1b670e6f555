"""Labelled folders become frozen, hashed datasets; a patient is in one split for life.

De-identified copies of the images lie in ``datasets/objects`` by their SHA-256, so that later changes of the folder
change nothing; patients are told apart by the folder, not by what the copies say. No pixel is decoded
here: whether an image can be read is found out by the trainer, in its child.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from clinic_ai.contract import Dataset, Example, PluginManifest
from clinic_ai.deidentification import Deidentifier
from clinic_ai.domain import new_id
from clinic_ai.errors import DatasetError
from clinic_ai.home import Home
from clinic_ai.store import datasets as store
from clinic_ai.store.database import Database
from clinic_ai.store.datasets import DatasetView, Split
from clinic_ai.store.meta import patient_key, site_key
from clinic_ai.store.objects import ObjectStore, hash_descriptor
from clinic_ai.store.reviews import labelled_examples
from clinic_ai.training.clean_images import HashedImage, clean_images
from clinic_ai.training.labelled_folder import LabelledImage, Reading, counted, image_descriptor, read_folder
from clinic_ai.wire import MAX_FRAME_BYTES

TRAIN_SHARE = 0.70
VALIDATION_SHARE = 0.15
"""The rest of the patients are for the test."""
MAX_DOCUMENT_BYTES = MAX_FRAME_BYTES * 3 // 4
"""A dataset travels to the trainer in one frame."""
_SHOWN = 20


class Datasets:
    """The frozen datasets of one home."""

    def __init__(self, home: Home, database: Database, deidentifier: Deidentifier) -> None:
        self._database = database
        self._deidentifier = deidentifier
        self._objects = ObjectStore(home.datasets / "objects")
        self._freezing = threading.Lock()

    def freeze(self, manifest: PluginManifest, directory: Path, actor: str, *, keep_burned_in: bool = False) -> Dataset:
        """Freeze the labelled images below ``directory`` for a plugin; the same content gives the same dataset.

        ``keep_burned_in`` keeps images whose header says that text identifying the patient is burnt in. Raise
        DatasetError with every problem of the folder at once, ChildError if nothing can be de-identified now.
        """
        reading = read_folder(directory, tuple(condition.code for condition in manifest.conditions))
        with self._freezing:
            unique = self._clean(directory, reading, keep_burned_in)
            return self._freeze(manifest, directory, unique, reading, actor)

    def freeze_reviewed(self, manifest: PluginManifest, actor: str, *, keep_burned_in: bool = False) -> Dataset:
        """Freeze what clinicians said of this plugin's conditions, where their review permits to learn from it.

        Raise DatasetError if that is nothing, or cannot be split by patients; ChildError like ``freeze``.
        """
        originals = self._deidentifier.objects
        with self._database.read() as connection:
            found = labelled_examples(connection, [condition.code for condition in manifest.conditions])
        here = [example for example in found if originals.has(example.sha256)]
        reading = Reading(
            images=[
                LabelledImage(
                    path=originals.path(example.sha256),
                    name=f"{example.study_id} {example.sha256[:12]}",
                    patient_id=example.patient_key,
                    labels=example.labels,
                    patient_key=example.patient_key,
                )
                for example in here
            ]
        )
        if len(here) < len(found):
            left = counted(len(found) - len(here), "reviewed image", "is", "are")
            reading.notes.append(f"{left} not stored any more and left out.")
        place = Path("reviews")
        with self._freezing:
            return self._freeze(manifest, place, self._clean(place, reading, keep_burned_in), reading, actor)

    def _clean(self, directory: Path, reading: Reading, keep_burned_in: bool) -> list[HashedImage]:
        """Return one of each image, de-identified. Raise DatasetError with every problem of the folder."""
        hashed = [HashedImage(image, sha256, sha256) for image in reading.images for sha256 in [_hash(image.path)]]
        unique = _without_duplicates(hashed, reading)
        if not unique and not reading.problems:
            reading.problems.append("There is no labelled image in it.")
        _refuse(directory, reading.problems)
        copies = self._deidentifier.copies({item.original: item.image.path for item in unique})
        clean = clean_images(unique, copies, reading, keep_burned_in=keep_burned_in)
        if not clean and not reading.problems:
            reading.problems.append(f"No image is left of it. {' '.join(reading.notes)}")
        clean = _without_duplicates(clean, reading)  # those that differed in their header alone
        _refuse(directory, reading.problems)
        return clean

    def _freeze(
        self, manifest: PluginManifest, directory: Path, unique: list[HashedImage], reading: Reading, actor: str
    ) -> Dataset:
        with self._database.write() as connection:
            key = site_key(connection)
            known = store.splits_of(connection, manifest.name)
            elsewhere = store.splits_of_images(connection, manifest.name)
        patients = {item.sha256: _patient(key, item) for item in unique}
        splits = {p: known.get(p) or split_of(key, manifest.name, p) for p in set(patients.values())}
        _check_splits(unique, patients, splits, elsewhere, reading.problems)
        _refuse(directory, reading.problems)
        for item in unique:
            self._keep(item)
        examples = tuple(
            Example(
                path=str(self._objects.path(item.sha256).absolute()),
                sha256=item.sha256,
                patient_key=patients[item.sha256],
                labels=item.image.labels,
                split=splits[patients[item.sha256]],
                groups=item.groups,
            )
            for item in sorted(unique, key=lambda item: item.sha256)
        )
        dataset = _fitting(
            Dataset(
                dataset_id=new_id("D"),
                plugin=manifest.name,
                digest=digest_of(examples),
                examples=examples,
                notes=tuple(reading.notes),
            )
        )
        with self._database.write() as connection:
            found = store.find_digest(connection, manifest.name, dataset.digest)
            if found is not None:
                return dataset.model_copy(update={"dataset_id": found})
            store.assign_splits(connection, manifest.name, {p: s for p, s in splits.items() if p not in known})
            store.add_dataset(connection, dataset, actor)
        return dataset

    def get(self, dataset_id: str) -> Dataset:
        """Return a dataset whose images all have their hash.

        Raise NotFound if there is none of that id, DatasetError if an image was damaged or removed since.
        """
        with self._database.read() as connection:
            dataset = store.get_dataset(connection, dataset_id)
        damaged = [e.sha256 for e in dataset.examples if not self._intact(e.sha256)]
        if damaged or digest_of(dataset.examples) != dataset.digest:
            raise DatasetError(
                f"The dataset {dataset_id} is damaged: {len(damaged)} of {len(dataset.examples)} images are missing or "
                "changed.",
                remedy="Start a new run from its folder, which freezes it again, or restore datasets/ from a backup.",
            )
        placed = tuple(
            e.model_copy(update={"path": str(self._objects.path(e.sha256).absolute())}) for e in dataset.examples
        )
        return dataset.model_copy(update={"examples": placed})

    def notes(self, dataset_id: str) -> tuple[str, ...]:
        """Return what people should know of a dataset, its counts first, without a look at its images.

        Raise NotFound.
        """
        with self._database.read() as connection:
            dataset = store.get_dataset(connection, dataset_id)
        return (*counts_of(dataset.examples), *dataset.notes)

    def list_datasets(self) -> list[DatasetView]:
        """Return all datasets, newest first."""
        with self._database.read() as connection:
            return store.list_datasets(connection)

    def _intact(self, sha256: str) -> bool:
        return self._objects.has(sha256) and self._objects.verify(sha256)

    def _keep(self, item: HashedImage) -> None:
        """Take a copy out of the object store, which may let go of it later."""
        if self._objects.has(item.sha256):
            return
        descriptor = os.open(self._deidentifier.objects.path(item.sha256), os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._objects.write_descriptor(descriptor)
        finally:
            os.close(descriptor)


def split_of(key: bytes, plugin: str, patient: str) -> Split:
    """Return the split of a patient key: 70 / 15 / 15 % by a keyed hash, the same at any time."""
    digest = hmac.new(key, f"split\0{plugin}\0{patient}".encode(), hashlib.sha256).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    if share < TRAIN_SHARE:
        return "train"
    return "validation" if share < TRAIN_SHARE + VALIDATION_SHARE else "test"


def digest_of(examples: Sequence[Example]) -> str:
    """Return the SHA-256 over image, patient, labels and split of all examples, in whatever order they come.

    Not over their groups: datasets of older versions have none, and what is learned does not depend on them.
    """
    rows = sorted([e.sha256, e.patient_key, sorted(e.labels.items()), e.split] for e in examples)
    return hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest()


def counts_of(examples: Sequence[Example]) -> list[str]:
    """Return a sentence for each part of the split: images and patients, in all and by condition."""
    conditions = sorted({condition for example in examples for condition in example.labels})
    sentences = []
    for split in get_args(Split):
        part = [example for example in examples if example.split == split]
        said = [f"{split}: {_count(part)}"]
        for condition in conditions:
            present, absent = ([e for e in part if e.labels.get(condition) == label] for label in (1, 0))
            if part:
                said.append(f"{condition} in {_count(present)}, not in {_count(absent)}")
        sentences.append("; ".join(said) + ".")
    return sentences


def _count(examples: Sequence[Example]) -> str:
    images, patients = len(examples), len({example.patient_key for example in examples})
    return f"{images} image{'' if images == 1 else 's'} of {patients} patient{'' if patients == 1 else 's'}"


def _hash(path: Path) -> str:
    descriptor = image_descriptor(path)
    try:
        return hash_descriptor(descriptor)[0]
    finally:
        os.close(descriptor)


def _patient(key: bytes, item: HashedImage) -> str:
    if item.image.patient_key:
        return item.image.patient_key
    # Without a patient the image stands for one, by its content: a renamed copy must not change the split.
    return patient_key(key, item.image.patient_id or f"image {item.original}")


def _without_duplicates(hashed: list[HashedImage], reading: Reading) -> list[HashedImage]:
    """Return one of each image; note the equal ones, and make the contradicting ones a problem."""
    groups: dict[str, list[HashedImage]] = defaultdict(list)
    for item in hashed:
        groups[item.sha256].append(item)
    unique, spare = [], 0
    for group in groups.values():
        labels: dict[str, int] = {}
        for item in group:
            against = [c for c, v in item.image.labels.items() if labels.setdefault(c, v) != v]
            if against:
                reading.problems.append(
                    f"{group[0].image.name} and {item.image.name} are the same image with contradicting labels "
                    f"for {', '.join(against)}."
                )
        if len({item.image.patient_id for item in group}) > 1:
            reading.problems.append(
                f"{group[0].image.name} and {group[-1].image.name} are the same image of two patients."
            )
        spare += len(group) - 1
        unique.append(replace(group[0], image=replace(group[0].image, labels=labels)))
    if spare:
        reading.notes.append(f"{counted(spare, 'image', 'was', 'were')} left out: the same image is there already.")
    return unique


def _check_splits(
    unique: list[HashedImage],
    patients: dict[str, str],
    splits: dict[str, Split],
    elsewhere: dict[str, tuple[Split, str]],
    problems: list[str],
) -> None:
    """Add what would leak from one split into another."""
    if len(splits) < 2:
        problems.append(f"All images ({len(unique)}) are of one patient; nothing could be validated on another.")
    for item in unique:
        # Datasets of older versions hold the originals.
        split, dataset_id = elsewhere.get(item.sha256) or elsewhere.get(item.original) or (None, "")
        if split is not None and split != splits[patients[item.sha256]]:
            problems.append(
                f"{item.image.name} would be in {splits[patients[item.sha256]]}; with another patient it is in {split} "
                f"of the dataset {dataset_id}."
            )


def _fitting(dataset: Dataset) -> Dataset:
    """Return a dataset that fits into a frame, if need be without groups. Raise DatasetError if even that does not."""
    if len(dataset.model_dump_json()) <= MAX_DOCUMENT_BYTES:
        return dataset
    note = "Sex, age group and station of the images were left out: the dataset would be too large with them."
    bare = tuple(example.model_copy(update={"groups": {}}) for example in dataset.examples)
    smaller = dataset.model_copy(update={"examples": bare, "notes": (*dataset.notes, note)})
    size = len(smaller.model_dump_json())
    if size > MAX_DOCUMENT_BYTES:
        most = len(bare) * MAX_DOCUMENT_BYTES // size
        raise DatasetError(
            f"The dataset has {len(bare)} images; this version takes about {most}.",
            remedy="Train on a part of them.",
        )
    return smaller


def _refuse(directory: Path, problems: list[str]) -> None:
    if problems:
        more = f" … and {len(problems) - _SHOWN} more." if len(problems) > _SHOWN else ""
        raise DatasetError(
            f"The folder {directory} has {len(problems)} problem{'' if len(problems) == 1 else 's'}: "
            + " ".join(problems[:_SHOWN])
            + more,
            remedy="Correct them in the folder or its labels.csv; docs/models.md shows the forms.",
        )
