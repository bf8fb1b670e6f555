"""What there is to learn from: labels that people signed, and folders of labelled images.

What is asked often, how many labelled images are new, is answered from memory: a file is hashed again only if its size
or its times changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from clinic_ai.contract import PluginManifest
from clinic_ai.domain import LabelSource
from clinic_ai.errors import DatasetError
from clinic_ai.store.database import Database
from clinic_ai.store.objects import ObjectStore, hash_descriptor
from clinic_ai.training.category_folders import category_of
from clinic_ai.training.label_reading import LabelFolder, Terms, label_folder, read_labels
from clinic_ai.training.labelled_folder import LabelledImage, Reading, image_descriptor
from clinic_ai.training.reviewed import Reviewed
from clinic_ai.training.sheet_reading import SheetReader

_MARK_DIGITS = 16
"""Digits of a mark: among a million images two are the same by chance once in ten million times."""

_REMEMBERED = 100_000
"""Files whose hash is remembered at most."""


@dataclass(frozen=True)
class _Looked:
    """What a folder held when it was in this state: the mark of what is said of each original, or its problems."""

    state: bytes
    marks: dict[str, str]
    problems: tuple[str, ...]


class Sources:
    """Reads what there is to learn from. Safe to call from several threads."""

    def __init__(self, labels: Path, database: Database, originals: ObjectStore, sheets: SheetReader) -> None:
        self._labels = labels
        self._reviewed = Reviewed(database, originals)
        self._sheets = sheets
        self._hashes = _Hashes()
        self._looked: dict[tuple[str, str, str], _Looked] = {}
        self._looking = threading.Lock()

    def folder(self, manifest: PluginManifest, directory: Path, terms: Terms) -> LabelFolder:
        """Return where labels lie that somebody named by a folder. Raise DatasetError if that means nothing."""
        return label_folder(manifest, directory, self._labels, terms.category)

    def chosen(
        self, manifest: PluginManifest, sources: Collection[LabelSource], terms: Terms, directory: Path | None = None
    ) -> LabelFolder:
        """Return what to look at: signed reviews, a folder (``labels/PLUGIN`` if none is named), or both.

        Beside reviews, a folder that nobody named may be missing or empty. Raise DatasetError if nothing is left, or no
        category is named for a plugin that learns answers.
        """
        reviews, place = "reviews" in sources, directory or self._labels / manifest.name
        if "labels" not in sources or (reviews and directory is None and not _holds_any(place)):
            return _reviews_alone(manifest, terms) if reviews else _nothing()
        folder = self.folder(manifest, place, terms)
        if reviews and directory is None and folder.directory is not None and not _holds_any(folder.directory):
            return replace(folder, directory=None, reviews=True)
        return replace(folder, reviews=reviews)

    def read(self, manifest: PluginManifest, folder: LabelFolder, terms: Terms) -> Reading:
        """Read the reviews first, the oldest before the newer ones, then the folder.

        Raise DatasetError if the folder is none, ChildError if no workbook can be read now.
        """
        reading = read_labels(manifest, folder, terms.trained, self._sheets)
        if folder.reviews:
            reading.images[:0] = self._reviewed.read(manifest, folder.key, reading)
        return reading

    def original(self, image: LabelledImage) -> str:
        """Return the SHA-256 of the file of an image. Raise DatasetError if it cannot be read."""
        return image.stored or self._hashes.of(image.path)

    def beside(self, image: LabelledImage) -> tuple[str, ...]:
        """Return the SHA-256 of each file beside a volume. Raise DatasetError if one cannot be read."""
        return tuple(one.stored or self._hashes.of(one.path) for one in image.beside)

    def marks(self, images: Sequence[LabelledImage]) -> tuple[str, ...]:
        """Return a mark of what is said of each image; the same for as long as neither changes."""
        return tuple(dict.fromkeys(self._mark(self.original(image), image) for image in images))

    def _mark(self, original: str, image: LabelledImage) -> str:
        return mark_of(original, image, self.beside(image))

    def fresh(self, manifest: PluginManifest, folder: LabelFolder, terms: Terms, seen: Collection[str]) -> set[str]:
        """Return the originals of which something is said that no mark in ``seen`` stands for. Raise as ``read``."""
        reading = Reading()
        signed: dict[str, str] = {}
        if folder.reviews:
            signed = {
                image.stored: self._mark(image.stored, image)
                for image in self._reviewed.read(manifest, folder.key, reading)
            }
        dropped = self._folder_marks(manifest, folder, terms)
        return {original for original, mark in (dropped | signed).items() if mark not in seen}

    def _folder_marks(self, manifest: PluginManifest, folder: LabelFolder, terms: Terms) -> dict[str, str]:
        if folder.directory is None:
            return {}
        place = (str(folder.directory), manifest.name, folder.key)
        state = _state_of(folder.directory, manifest)
        with self._looking:
            looked = self._looked.get(place)
            if looked is None or looked.state != state:
                reading = read_labels(manifest, folder, terms.trained, self._sheets)
                hashed = [(self.original(image), image) for image in reading.images if not reading.problems]
                marks = {original: self._mark(original, image) for original, image in hashed}
                looked = self._looked[place] = _Looked(state, marks, tuple(reading.problems))
        if looked.problems:
            raise DatasetError(
                f"The folder {folder.directory} has problems, the first of them: {looked.problems[0]}",
                problems=looked.problems,
                remedy=f"`clinic-ai train check {manifest.name} {folder.directory}` lists all of them.",
            )
        return looked.marks


def mark_of(original: str, image: LabelledImage, beside: Sequence[str] = ()) -> str:
    """Return a mark of an image, by the SHA-256 of its file and those beside it, and of what is said of it."""
    pairs = sorted((pair.question, pair.answer) for pair in image.pairs)
    said = [original, sorted(image.labels.items()), pairs]
    if beside:
        files = zip(image.beside, beside, strict=True)
        said.append(sorted((one.role, one.condition, sha256) for one, sha256 in files))
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:_MARK_DIGITS]


class _Hashes:
    """SHA-256 of files, computed again only for those whose size, times or inode changed."""

    def __init__(self) -> None:
        self._known: dict[bytes, str] = {}

    def of(self, path: Path) -> str:
        """Return the SHA-256 of a file. Raise DatasetError if it cannot be read."""
        descriptor = image_descriptor(path)
        try:
            key = hashlib.blake2b(repr((str(path), *_stamp(os.fstat(descriptor)))).encode(), digest_size=16).digest()
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            if key not in self._known:
                self._known[key] = hash_descriptor(descriptor)[0]
            return self._known[key]
        finally:
            os.close(descriptor)


def _stamp(found: os.stat_result) -> tuple[int, ...]:
    """Return what changes with the content of a file, its owner's games with the times aside."""
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev


def _state_of(directory: Path, manifest: PluginManifest) -> bytes:
    """Return a digest that changes with any file below a folder, and with what the plugin learns."""
    digest = hashlib.sha256(repr((manifest.conditions, manifest.categories)).encode())
    for path, stamp in sorted(_walk(directory)):
        digest.update(repr((path, stamp)).encode())
    return digest.digest()


def _walk(directory: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield every file below a folder. Raise DatasetError if a folder cannot be read."""
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from _walk(Path(entry.path))
                else:
                    yield entry.path, _stamp(entry.stat(follow_symlinks=False))
    except FileNotFoundError:
        return  # it went while we looked; the next look tells
    except OSError as error:
        raise DatasetError(
            f"{directory} cannot be read: {error.strerror}.", remedy="Correct its permissions."
        ) from error


def _holds_any(directory: Path) -> bool:
    """Whether there is such a folder with something in it."""
    try:
        return any(not entry.name.startswith(".") for entry in directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise DatasetError(
            f"{directory} cannot be read: {error.strerror}.", remedy="Correct its permissions."
        ) from error


def _reviews_alone(manifest: PluginManifest, terms: Terms) -> LabelFolder:
    if manifest.labels != "answers":
        return LabelFolder(None, reviews=True, filled=manifest.labels == "volumes")
    if not terms.category:
        raise DatasetError(
            f"The plugin {manifest.name} learns one category at a time.", remedy="Say which with --category."
        )
    return LabelFolder(None, category_of(terms.category, manifest.categories), reviews=True, filled=True)


def _nothing() -> LabelFolder:
    raise DatasetError("There is nothing to learn from.", remedy="Name reviews, labels or both.")
