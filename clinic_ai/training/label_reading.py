"""Reads labelled images for a plugin, in the form its trainer learns from: conditions, or answers about a category."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from clinic_ai.contract import PluginManifest
from clinic_ai.domain import CategoryInfo
from clinic_ai.errors import DatasetError
from clinic_ai.training.category_folders import category_of, folder_of, untrained
from clinic_ai.training.labelled_folder import Reading, read_folder
from clinic_ai.training.labelled_sheets import ReadWorkbooks, read_answers
from clinic_ai.training.volume_folder import read_volumes


@dataclass(frozen=True)
class LabelFolder:
    """Where labels lie, and the category they are about; none for conditions.

    ``reviews``: what people signed is looked at too. Without a ``directory`` it is that alone. ``filled``: drops are
    small, and of each some patients go into every part; else the hash of a patient alone decides.
    """

    directory: Path | None
    category: CategoryInfo | None = None
    reviews: bool = False
    filled: bool = False

    @property
    def key(self) -> str:
        """Key of the category, empty for conditions."""
        return self.category.key if self.category else ""

    @property
    def said(self) -> str:
        """What is looked at, in words."""
        parts = ["signed reviews"] if self.reviews else []
        return " and ".join([*parts, *([str(self.directory)] if self.directory is not None else [])])


@dataclass(frozen=True)
class Terms:
    """On what terms labels become a dataset.

    ``keep_burned_in`` keeps images whose header says that text identifying the patient is burnt in. ``category`` names
    what answers are about, where the folder does not. ``trained`` are the slots of the plugin with an active model.
    """

    keep_burned_in: bool = False
    category: str = ""
    trained: frozenset[str] = frozenset()


def label_folder(manifest: PluginManifest, directory: Path, labels: Path, category: str) -> LabelFolder:
    """Return where the labels of a plugin lie that somebody named by a folder, or by a category below ``labels``.

    Raise DatasetError if no category of the plugin is called so, or it has none.
    """
    if manifest.labels != "answers":
        if category:
            raise DatasetError(f"The plugin {manifest.name} has no categories.", remedy="Leave out the category.")
        return LabelFolder(directory, filled=manifest.labels == "volumes")
    if not category and directory == labels / manifest.name:
        raise DatasetError(
            f"{directory} has a folder for each category; a run learns one.", remedy="Say which with --category."
        )
    if not category:
        return LabelFolder(directory, category_of(directory.name, manifest.categories), filled=True)
    found = category_of(category, manifest.categories)
    inner = folder_of(found, directory)
    place = inner if inner.is_dir() or directory == labels / manifest.name else directory
    return LabelFolder(place, found, filled=True)


def read_labels(
    manifest: PluginManifest, folder: LabelFolder, trained: Collection[str], read_workbooks: ReadWorkbooks
) -> Reading:
    """Read the labels of the folder, if there is one; ``trained`` as in ``Terms``.

    Raise DatasetError if there is no folder, or nothing that could be labels; ChildError if nothing can be read now.
    """
    if folder.directory is None:
        return Reading()
    if manifest.labels == "volumes":
        return read_volumes(folder.directory, manifest.conditions)
    if folder.category is None:
        return read_folder(folder.directory, tuple(condition.code for condition in manifest.conditions))
    why_not = untrained(folder.category, folder.directory, trained=folder.key in trained)
    if why_not:
        raise DatasetError(
            f"The {why_not}.", remedy="Make one as docs/labelling-ultrasound.md shows, and put the images beside it."
        )
    return read_answers(folder.directory, folder.category, read_workbooks)
