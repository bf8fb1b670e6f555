"""Labelled folders become frozen, hashed datasets; a patient is in one split for life.

De-identified copies of the images lie in ``datasets/objects`` by their SHA-256, so that later changes of the folder
change nothing; patients are told apart by the folder, not by what the copies say. No pixel is decoded
here: whether an image can be read is found out by the trainer, in its child.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path

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
from clinic_ai.training.checking import (
    Checked,
    checked,
    counts_of,
    refuse_empty_parts,
    refuse_leaks,
    refuse_one_patient,
    without_duplicates,
)
from clinic_ai.training.clean_images import HashedImage, clean_images
from clinic_ai.training.label_reading import LabelFolder, Terms, label_folder, read_labels
from clinic_ai.training.labelled_folder import LabelledImage, Reading, counted, image_descriptor
from clinic_ai.training.sheet_reading import SheetReader
from clinic_ai.training.splits import filled_splits, split_of
from clinic_ai.wire import MAX_FRAME_BYTES

MAX_DOCUMENT_BYTES = MAX_FRAME_BYTES * 3 // 4
"""A dataset travels to the trainer in one frame."""
_SHOWN = 20
_USUAL = Terms()


class Datasets:
    """The frozen datasets of one home."""

    def __init__(self, home: Home, database: Database, deidentifier: Deidentifier, sheets: SheetReader) -> None:
        self._labels = home.labels
        self._database = database
        self._deidentifier = deidentifier
        self._sheets = sheets
        self._objects = ObjectStore(home.datasets / "objects")
        self._freezing = threading.Lock()

    def freeze(self, manifest: PluginManifest, directory: Path, actor: str, terms: Terms = _USUAL) -> Dataset:
        """Freeze the labelled images below ``directory`` for a plugin; the same content gives the same dataset.

        Raise DatasetError with every problem of the folder at once, ChildError if nothing can be de-identified or no
        workbook be read now.
        """
        folder = label_folder(manifest, directory, self._labels, terms.category)
        reading = read_labels(manifest, folder, terms.trained, self._sheets)
        with self._freezing:
            unique = self._clean(folder, reading, terms.keep_burned_in)
            return self._freeze(manifest, folder, unique, reading, actor)

    def check(self, manifest: PluginManifest, directory: Path, terms: Terms = _USUAL) -> Checked:
        """Return what ``freeze`` would make of a folder, or why it would refuse it; nothing of it is kept.

        Raise ChildError like ``freeze``.
        """
        folder, reading, dataset = LabelFolder(directory), Reading(), None
        problems: tuple[str, ...] = ()
        try:
            folder = label_folder(manifest, directory, self._labels, terms.category)
            reading = read_labels(manifest, folder, terms.trained, self._sheets)
            with self._freezing:
                unique = self._clean(folder, reading, terms.keep_burned_in, keep=False)
                dataset, _ = self._made(manifest, folder, unique, reading)
        except DatasetError as error:
            problems = error.problems or (f"{error.message} {error.remedy}".strip(),)
        return checked(folder, reading, dataset, problems)

    def freeze_reviewed(self, manifest: PluginManifest, actor: str, *, keep_burned_in: bool = False) -> Dataset:
        """Freeze what clinicians said of this plugin's conditions, where their review permits to learn from it.

        Raise DatasetError if that is nothing, cannot be split by patients, or the plugin learns from answers;
        ChildError like ``freeze``.
        """
        if manifest.labels == "answers":
            raise DatasetError(
                f"The plugin {manifest.name} learns from questions and answers; reviews of findings hold none.",
                remedy="Label images in a sheet, as docs/labelling-ultrasound.md shows.",
            )
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
        folder = LabelFolder(Path("reviews"))
        with self._freezing:
            return self._freeze(manifest, folder, self._clean(folder, reading, keep_burned_in), reading, actor)

    def _clean(
        self, folder: LabelFolder, reading: Reading, keep_burned_in: bool, *, keep: bool = True
    ) -> list[HashedImage]:
        """Return one of each image, de-identified. Raise DatasetError with every problem of the folder."""
        hashed = [HashedImage(image, sha256, sha256) for image in reading.images for sha256 in [_hash(image.path)]]
        unique = without_duplicates(hashed, reading)
        if not unique and not reading.problems:
            reading.problems.append("There is no labelled image in it.")
        _refuse(folder, reading.problems)
        copies = self._deidentifier.copies({item.original: item.image.path for item in unique}, keep=keep)
        clean = clean_images(unique, copies, reading, keep_burned_in=keep_burned_in)
        if not clean and not reading.problems:
            reading.problems.append(f"No image is left of it. {' '.join(reading.notes)}")
        clean = without_duplicates(clean, reading)  # those that differed in their header alone
        _refuse(folder, reading.problems)
        return clean

    def _freeze(
        self, manifest: PluginManifest, folder: LabelFolder, unique: list[HashedImage], reading: Reading, actor: str
    ) -> Dataset:
        dataset, fresh = self._made(manifest, folder, unique, reading)
        for item in unique:
            self._keep(item)
        with self._database.write() as connection:
            found = store.find_digest(connection, manifest.name, dataset.digest)
            if found is not None:
                return dataset.model_copy(update={"dataset_id": found})
            store.assign_splits(connection, manifest.name, fresh)
            store.add_dataset(connection, dataset, actor)
        return dataset

    def _made(
        self, manifest: PluginManifest, folder: LabelFolder, unique: list[HashedImage], reading: Reading
    ) -> tuple[Dataset, dict[str, Split]]:
        """Return the dataset and the splits that its patients get with it. Raise DatasetError if it would leak."""
        with self._database.write() as connection:
            key = site_key(connection)
            known = store.splits_of(connection, manifest.name)
            elsewhere = store.splits_of_images(connection, manifest.name)
        patients = {item.sha256: _patient(key, item) for item in unique}
        everybody = set(patients.values())
        if folder.category is None:
            splits = {p: known.get(p) or split_of(key, manifest.name, p) for p in everybody}
            refuse_one_patient(unique, splits, reading.problems)
        else:
            splits = filled_splits(key, manifest.name, everybody, known)
            refuse_empty_parts(splits, reading.problems)
        refuse_leaks(unique, patients, splits, elsewhere, reading.problems)
        _refuse(folder, reading.problems)
        examples = tuple(
            Example(
                path=str(self._objects.place(item.sha256).absolute()),
                sha256=item.sha256,
                patient_key=patients[item.sha256],
                labels=item.image.labels,
                split=splits[patients[item.sha256]],
                groups=item.groups,
                pairs=item.image.pairs,
            )
            for item in sorted(unique, key=lambda item: item.sha256)
        )
        dataset = Dataset(
            dataset_id=new_id("D"),
            plugin=manifest.name,
            digest=digest_of(examples, folder.key),
            examples=examples,
            notes=tuple(reading.notes),
            category=folder.key,
        )
        return _fitting(dataset), {p: s for p, s in splits.items() if p not in known}

    def get(self, dataset_id: str) -> Dataset:
        """Return a dataset whose images all have their hash.

        Raise NotFound if there is none of that id, DatasetError if an image was damaged or removed since.
        """
        with self._database.read() as connection:
            dataset = store.get_dataset(connection, dataset_id)
        damaged = [e.sha256 for e in dataset.examples if not self._intact(e.sha256)]
        if damaged or digest_of(dataset.examples, dataset.category) != dataset.digest:
            raise DatasetError(
                f"The dataset {dataset_id} is damaged: {len(damaged)} of {len(dataset.examples)} images are missing or "
                "changed.",
                remedy="Start a new run from its folder, which freezes it again, or restore datasets/ from a backup.",
            )
        placed = tuple(
            e.model_copy(update={"path": str(self._objects.place(e.sha256).absolute())}) for e in dataset.examples
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


def digest_of(examples: Sequence[Example], category: str = "") -> str:
    """Return the SHA-256 over image, patient, labels or pairs, and split of all examples, in whatever order they come.

    Not over their groups: datasets of older versions have none, and what is learned does not depend on them.
    """
    rows = sorted(
        [e.sha256, e.patient_key, sorted(e.labels.items()), e.split]
        + ([sorted((pair.question, pair.answer) for pair in e.pairs)] if e.pairs else [])
        for e in examples
    )
    document = {"category": category, "examples": rows} if category else rows
    return hashlib.sha256(json.dumps(document, separators=(",", ":")).encode()).hexdigest()


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


def _refuse(folder: LabelFolder, problems: list[str]) -> None:
    if problems:
        more = f" … and {len(problems) - _SHOWN} more." if len(problems) > _SHOWN else ""
        remedy = "Correct them in the folder or its labels.csv; docs/models.md shows the forms."
        if folder.category is not None:
            remedy = (
                "Correct them in the folder or its sheet; `clinic-ai train check` lists all of them, and "
                "docs/labelling-ultrasound.md shows the forms."
            )
        raise DatasetError(
            f"The folder {folder.directory} has {len(problems)} problem{'' if len(problems) == 1 else 's'}: "
            + " ".join(problems[:_SHOWN])
            + more,
            problems=tuple(problems),
            remedy=remedy,
        )
