"""Labelled folders and signed reviews become frozen, hashed datasets; a patient is in one split for life.

De-identified copies of the images lie in ``datasets/objects`` by their SHA-256, so that later changes of the folder
change nothing; patients are told apart by the folder, not by what the copies say. No pixel is decoded
here: whether an image can be read is found out by the trainer, in its child.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from clinic_ai import __version__
from clinic_ai.contract import Beside, Dataset, Example, PluginManifest
from clinic_ai.deidentification import Deidentifier
from clinic_ai.domain import FOLDER_ALONE, FolderOrigin, LabelSource, LeftOut, Lineage, new_id
from clinic_ai.errors import DatasetError, NotFound
from clinic_ai.home import Home
from clinic_ai.store import datasets as store
from clinic_ai.store import reviews
from clinic_ai.store.database import Database
from clinic_ai.store.datasets import DatasetView
from clinic_ai.store.meta import site_key
from clinic_ai.store.objects import ObjectStore
from clinic_ai.training.checking import Checked, checked, counts_of, refuse_empty_parts, refuse_one_patient
from clinic_ai.training.clean_images import HashedImage, clean_images
from clinic_ai.training.conditioning import condition
from clinic_ai.training.duplicates import without_duplicates
from clinic_ai.training.inspection import DatasetCheck, DatasetDetails, check_of, details_of
from clinic_ai.training.label_reading import LabelFolder, Terms
from clinic_ai.training.labelled_folder import Reading, counted
from clinic_ai.training.leaks import Parted, Past, part
from clinic_ai.training.sheet_reading import SheetReader
from clinic_ai.training.sources import Sources
from clinic_ai.wire import MAX_FRAME_BYTES

MAX_DOCUMENT_BYTES = MAX_FRAME_BYTES * 3 // 4
"""A dataset travels to the trainer in one frame."""
_SHOWN = 20
_USUAL = Terms()


class Datasets:
    """The frozen datasets of one home."""

    def __init__(self, home: Home, database: Database, deidentifier: Deidentifier, sheets: SheetReader) -> None:
        self._database = database
        self._deidentifier = deidentifier
        self._sources = Sources(home.labels, database, deidentifier.objects, sheets)
        self._objects = ObjectStore(home.datasets / "objects")
        self._freezing = threading.Lock()

    def freeze(self, manifest: PluginManifest, directory: Path, actor: str, terms: Terms = _USUAL) -> Dataset:
        """Freeze the labelled images below ``directory`` for a plugin; the same content gives the same dataset.

        Raise DatasetError with every problem of the folder at once, ChildError if nothing can be de-identified or no
        workbook be read now.
        """
        return self.gather(manifest, FOLDER_ALONE, actor, terms, directory)

    def gather(
        self,
        manifest: PluginManifest,
        sources: Collection[LabelSource],
        actor: str,
        terms: Terms = _USUAL,
        directory: Path | None = None,
    ) -> Dataset:
        """Freeze what people signed, the labelled images of a folder (``labels/PLUGIN`` if none is named), or both.

        Where both say something of an image, the signed review counts. Beside reviews, ``labels/PLUGIN`` may be
        missing or empty. Raise as ``freeze``.
        """
        folder = self._sources.chosen(manifest, sources, terms, directory)
        reading = self._sources.read(manifest, folder, terms)
        seen = self._sources.marks(reading.images)
        condition(reading, folder.category)
        with self._freezing:
            unique = self._clean(folder, reading, terms.keep_burned_in)
            return self._freeze(manifest, folder, unique, reading, _Origin(actor, directory, seen))

    def fresh(
        self,
        manifest: PluginManifest,
        sources: Collection[LabelSource],
        terms: Terms = _USUAL,
        since: str | None = None,
    ) -> int:
        """Return of how many images something is said that was not there when the dataset ``since`` was made.

        Without ``since``, of how many anything is said. It is cheap: files that did not change are not read again.
        Raise NotFound, DatasetError if the folder has problems, ChildError if no workbook can be read now.
        """
        folder = self._sources.chosen(manifest, sources, terms)
        if since is None:
            return len(self._sources.fresh(manifest, folder, terms, ()))
        with self._database.read() as connection:
            seen = store.lineage_of(connection, since).seen
        if seen:
            return len(self._sources.fresh(manifest, folder, terms, frozenset(seen)))
        # A dataset of an older version does not say what was looked at for it, only what it holds.
        with self._database.read() as connection:
            held = {example.sha256 for example in store.get_dataset(connection, since).examples}
        now = self._sources.fresh(manifest, folder, terms, ())
        copies = self._deidentifier.known(now)
        return sum(1 for original in now if original not in held and copies.get(original) not in held)

    def check(self, manifest: PluginManifest, directory: Path, terms: Terms = _USUAL) -> Checked:
        """Return what ``freeze`` would make of a folder, or why it would refuse it; nothing of it is kept.

        Raise ChildError like ``freeze``.
        """
        return self.check_sources(manifest, FOLDER_ALONE, terms, directory)

    def check_sources(
        self,
        manifest: PluginManifest,
        sources: Collection[LabelSource],
        terms: Terms = _USUAL,
        directory: Path | None = None,
    ) -> Checked:
        """Return what ``gather`` would make of these, or why it would refuse them; nothing of it is kept.

        Raise ChildError like ``gather``.
        """
        folder, reading, dataset = LabelFolder(directory, reviews="reviews" in sources), Reading(), None
        problems: tuple[str, ...] = ()
        try:
            folder = self._sources.chosen(manifest, sources, terms, directory)
            reading = self._sources.read(manifest, folder, terms)
            dataset = self._drafted(manifest, folder, reading, terms)
        except DatasetError as error:
            problems = error.problems or (f"{error.message} {error.remedy}".strip(),)
        return checked(folder, reading, dataset, problems)

    def draft(self, manifest: PluginManifest, sources: Collection[LabelSource], terms: Terms = _USUAL) -> Dataset:
        """Return what ``gather`` would freeze, to be counted and not to be read; nothing of it is kept.

        Raise as ``gather``.
        """
        folder = self._sources.chosen(manifest, sources, terms)
        return self._drafted(manifest, folder, self._sources.read(manifest, folder, terms), terms)

    def _drafted(self, manifest: PluginManifest, folder: LabelFolder, reading: Reading, terms: Terms) -> Dataset:
        condition(reading, folder.category)
        with self._freezing:
            unique = self._clean(folder, reading, terms.keep_burned_in, keep=False)
            return self._made(manifest, folder, unique, reading)[0]

    def _clean(
        self, folder: LabelFolder, reading: Reading, keep_burned_in: bool, *, keep: bool = True
    ) -> list[HashedImage]:
        """Return one of each image, de-identified. Raise DatasetError with every problem of what was read."""
        hashed = [
            HashedImage(image, sha256, sha256, beside=self._sources.beside(image))
            for image in reading.images
            for sha256 in [self._sources.original(image)]
        ]
        unique = without_duplicates(hashed, reading)
        if not unique and not reading.problems:
            left = f"No image is left of it. {' '.join(reading.notes)}"
            reading.problems.append(left if reading.left_out else _no_image(folder))
        _refuse(folder, reading.problems)
        files = {sha256: file for item in unique for sha256, file in item.files.items()}
        paths = {sha256: path for sha256, (path, _) in files.items()}
        copies = self._deidentifier.copies(
            paths, keep=keep, kinds={sha256: kind for sha256, (_, kind) in files.items()}
        )
        clean = clean_images(unique, copies, reading, keep_burned_in=keep_burned_in)
        if not clean and not reading.problems:
            reading.problems.append(f"No image is left of it. {' '.join(reading.notes)}")
        clean = without_duplicates(clean, reading)  # those that differed in their header alone
        _refuse(folder, reading.problems)
        return clean

    def _freeze(
        self,
        manifest: PluginManifest,
        folder: LabelFolder,
        unique: list[HashedImage],
        reading: Reading,
        origin: _Origin,
    ) -> Dataset:
        dataset, parted = self._made(manifest, folder, unique, reading)
        for item in parted.images:
            for sha256 in (item.sha256, *item.copies):
                self._keep(sha256)
        with self._database.write() as connection:
            lineage = origin.lineage(folder, parted, reading, store.newest(connection, manifest.name, folder.key))
            # Also of a dataset that is there already: a name that a patient came under now is known from then on.
            store.assign_splits(connection, manifest.name, parted.fresh(store.splits_of(connection, manifest.name)))
            found = store.find_digest(connection, manifest.name, dataset.digest)
            if found is not None:
                store.found_again(connection, found, lineage, origin.actor)
                return dataset.model_copy(update={"dataset_id": found})
            store.add_dataset(connection, dataset, lineage, origin.actor)
        return dataset

    def _made(
        self, manifest: PluginManifest, folder: LabelFolder, unique: list[HashedImage], reading: Reading
    ) -> tuple[Dataset, Parted]:
        """Return the dataset, and who is in which part of it. Raise DatasetError if it would leak or mean nothing."""
        with self._database.write() as connection:
            past = Past(
                key=site_key(connection),
                splits=store.splits_of(connection, manifest.name),
                images=store.splits_of_images(connection, manifest.name),
            )
        parted = part(manifest.name, folder, unique, past, reading)
        if folder.filled:
            refuse_empty_parts(parted.splits, reading.problems)
        else:
            refuse_one_patient(parted.images, parted.splits, reading.problems)
        _refuse(folder, reading.problems)
        examples = tuple(
            Example(
                path=self._place(item.sha256),
                sha256=item.sha256,
                patient_key=parted.patient(item),
                labels=item.image.labels,
                split=parted.split(item),
                groups=item.groups,
                pairs=item.image.pairs,
                beside=tuple(
                    Beside(role=one.role, condition=one.condition, path=self._place(sha256), sha256=sha256)
                    for one, sha256 in zip(item.image.beside, item.copies, strict=True)
                ),
            )
            for item in sorted(parted.images, key=lambda item: item.sha256)
        )
        dataset = Dataset(
            dataset_id=new_id("D"),
            plugin=manifest.name,
            digest=digest_of(examples, folder.key),
            examples=examples,
            notes=tuple(reading.notes),
            category=folder.key,
        )
        return _fitting(dataset), parted

    def get(self, dataset_id: str) -> Dataset:
        """Return a dataset whose images all have their hash.

        Raise NotFound if there is none of that id, DatasetError if an image was damaged or removed since.
        """
        with self._database.read() as connection:
            dataset = store.get_dataset(connection, dataset_id)
        damaged = [e.sha256 for e in dataset.examples if not self._whole(e)]
        if damaged or digest_of(dataset.examples, dataset.category) != dataset.digest:
            raise DatasetError(
                f"The dataset {dataset_id} is damaged: {len(damaged)} of {len(dataset.examples)} images are missing or "
                "changed.",
                remedy="Start a new run from its folder, which freezes it again, or restore datasets/ from a backup.",
            )
        placed = tuple(
            e.model_copy(
                update={
                    "path": self._place(e.sha256),
                    "beside": tuple(b.model_copy(update={"path": self._place(b.sha256)}) for b in e.beside),
                }
            )
            for e in dataset.examples
        )
        return dataset.model_copy(update={"examples": placed})

    def newest(self, plugin: str) -> str:
        """Return the id of the newest dataset of a plugin. Raise NotFound if there is none."""
        found = next((view.dataset_id for view in self.list_datasets() if view.plugin == plugin), None)
        if found is None:
            remedy = "`clinic-ai train run` freezes one from labelled images."
            raise NotFound(f"There is no frozen dataset of {plugin}.", remedy=remedy)
        return found

    def refuse_withdrawn(self, dataset_id: str) -> None:
        """Raise DatasetError if a reviewer took back the consent to learn from a review that is in a dataset."""
        with self._database.read() as connection:
            count = reviews.withdrawn(connection, store.lineage_of(connection, dataset_id).reviews)
        if count:
            raise DatasetError(
                f"{counted(count, 'review', 'is', 'are')} in the dataset {dataset_id} that nobody may learn from any "
                "more: the consent was taken back.",
                remedy="Start a new run, which freezes a dataset without it.",
            )

    def notes(self, dataset_id: str) -> tuple[str, ...]:
        """Return what people should know of a dataset, its counts first, without a look at its images.

        Raise NotFound.
        """
        with self._database.read() as connection:
            dataset = store.get_dataset(connection, dataset_id)
        return (*counts_of(dataset.examples), *dataset.notes)

    def show(self, dataset_id: str) -> DatasetDetails:
        """Return all that is known of a dataset, without a look at its images. Raise NotFound."""
        with self._database.read() as connection:
            return details_of(store.get_view(connection, dataset_id), store.get_dataset(connection, dataset_id))

    def inspect(self, dataset_id: str) -> DatasetCheck:
        """Read every image of a dataset again and return what is wrong with it. Raise NotFound."""
        with self._database.read() as connection:
            dataset = store.get_dataset(connection, dataset_id)
            splits = store.splits_of(connection, dataset.plugin)
            elsewhere = store.splits_of_images(connection, dataset.plugin, but=dataset_id)
            newer = store.newer_labels(connection, dataset_id)
        damaged = [example.sha256 for example in dataset.examples if not self._whole(example)]
        found = check_of(dataset, damaged, splits, elsewhere, newer)
        if digest_of(dataset.examples, dataset.category) == dataset.digest:
            return found
        changed = (
            "What is said of its images is not what was frozen: the database was changed. Restore it from a backup."
        )
        return found.model_copy(update={"problems": (changed, *found.problems)})

    def list_datasets(self, limit: int | None = None, before: str | None = None) -> list[DatasetView]:
        """Return all datasets, newest first; or ``limit`` of them, after ``before``. Raise NotFound if that is none."""
        with self._database.read() as connection:
            return store.list_datasets(connection, limit, before)

    def _place(self, sha256: str) -> str:
        return str(self._objects.place(sha256).absolute())

    def _whole(self, example: Example) -> bool:
        """Whether an image or volume is as it was frozen, and what lies beside it."""
        files = (example.sha256, *(beside.sha256 for beside in example.beside))
        return all(self._objects.has(sha256) and self._objects.verify(sha256) for sha256 in files)

    def _keep(self, sha256: str) -> None:
        """Take a copy out of the object store, which may let go of it later."""
        if self._objects.has(sha256):
            return
        descriptor = os.open(self._deidentifier.objects.path(sha256), os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._objects.write_descriptor(descriptor)
        finally:
            os.close(descriptor)


def digest_of(examples: Sequence[Example], category: str = "") -> str:
    """Return the SHA-256 over image, patient, labels or pairs, and split of all examples, in whatever order they come.

    What lies beside a volume counts as well. Their groups do not: datasets of older versions have none, and what is
    learned does not depend on them.
    """
    rows = sorted(
        [e.sha256, e.patient_key, sorted(e.labels.items()), e.split]
        + ([sorted((pair.question, pair.answer) for pair in e.pairs)] if e.pairs else [])
        + ([sorted((one.role, one.condition, one.sha256) for one in e.beside)] if e.beside else [])
        for e in examples
    )
    document = {"category": category, "examples": rows} if category else rows
    return hashlib.sha256(json.dumps(document, separators=(",", ":")).encode()).hexdigest()


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


@dataclass(frozen=True)
class _Origin:
    """Who makes a dataset, of which folder as that person named it, and marks of all that was looked at."""

    actor: str
    directory: Path | None
    seen: tuple[str, ...]

    def lineage(self, folder: LabelFolder, parted: Parted, reading: Reading, before: str | None) -> Lineage:
        """Return where the dataset comes from; ``before`` is the one it grew from."""
        everything = [one.image for item in parted.images for one in item.all]
        signed = sum(1 for item in parted.images if item.image.review_id)
        path = self.directory or folder.directory
        return Lineage(
            reviews=tuple(sorted({image.review_id for image in everything if image.review_id})),
            folders=(FolderOrigin(path=str(path), given_by=self.actor),) if folder.directory is not None else (),
            parents=(before,) if before is not None else (),
            images={"reviews": signed, "labels": len(parted.images) - signed},
            left_out=tuple(
                LeftOut(reason=reason, what=what, count=count)
                for (reason, what), count in sorted(reading.left_out.items())
            ),
            made_by=f"clinic-ai {__version__}",
            seen=self.seen,
        )


def _refuse(folder: LabelFolder, problems: list[str]) -> None:
    if not problems:
        return
    more = f" … and {len(problems) - _SHOWN} more." if len(problems) > _SHOWN else ""
    name, have = (f"The folder {folder.said}", "has") if not folder.reviews else (f"The {folder.said}", "have")
    raise DatasetError(
        f"{name} {have} {len(problems)} problem{'' if len(problems) == 1 else 's'}: "
        + " ".join(problems[:_SHOWN])
        + more,
        problems=tuple(problems),
        remedy=_remedy(folder),
    )


def _no_image(folder: LabelFolder) -> str:
    if folder.directory is not None:
        return "There is no labelled image in it."
    if folder.category is None:
        return "There is no labelled image in it: none speaks of this plugin's conditions and permits learning."
    # Nobody confirms what a model answers to a question that somebody asks in between.
    return (
        "There is no labelled image in it: no report that permits learning answers a standard question about "
        f"{folder.category.label}. Questions of `clinic-ai study ask` are signed by nobody and not learned from."
    )


def _remedy(folder: LabelFolder) -> str:
    if folder.directory is None:
        return "Review more studies: what is signed with consent is learned from. docs/models.md tells the rest."
    if folder.category is None:
        return "Correct them in the folder or its labels.csv; docs/models.md shows the forms."
    return (
        "Correct them in the folder or its sheet; `clinic-ai train check` lists all of them, and "
        "docs/labelling-ultrasound.md shows the forms."
    )
