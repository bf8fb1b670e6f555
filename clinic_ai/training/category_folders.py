"""Which category a folder of labels is for, where that of a category lies, and what it lacks before it can be learned.

Each category has a folder of its own, usually ``labels/<plugin>/<category>/`` of the home, under any of its names.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path

from clinic_ai.domain import CategoryInfo, categories_named, plain_name
from clinic_ai.errors import DatasetError

SHEET_SUFFIX = ".xlsx"


def category_of(name: str, categories: Sequence[CategoryInfo]) -> CategoryInfo:
    """Return the category of this name, compared with keys, labels and aliases.

    Raise DatasetError, with the nearest names there are, if none or more than one is called so.
    """
    found = categories_named(name, categories)
    if len(found) == 1:
        return found[0]
    if found:
        raise DatasetError(
            f"“{name}” may mean {' or '.join(category.key for category in found)}.",
            remedy="Say which with --category, by its key.",
        )
    keys = {plain_name(word): c.key for c in categories for word in (c.key, c.label, *c.aliases)}
    near = dict.fromkeys(keys[word] for word in difflib.get_close_matches(plain_name(name), keys, n=3))
    known = ", ".join(near or [category.key for category in categories]) or "none"
    raise DatasetError(
        f"“{name}” is no category of this plugin ({'nearest' if near else 'it knows'}: {known}).",
        remedy="Give the folder the name of its category, or say which with --category.",
    )


def folder_of(category: CategoryInfo, labels: Path) -> Path:
    """Return the folder of a category below ``labels``, the folder of its plugin; its key, if there is none yet."""
    here = [child for child in _children(labels) if categories_named(child.name, (category,)) and child.is_dir()]
    if len(here) > 1:
        names = " and ".join(child.name for child in here)
        raise DatasetError(
            f"{labels} has more than one folder of {category.label}: {names}.", remedy="Put them into one."
        )
    return here[0] if here else labels / category.key


def lacking(folder: Path) -> str:
    """Return what a category's folder lacks before anything can be learned from it, empty if it may do."""
    if any(_is_sheet(path) for path in _files(folder)):
        return ""
    return f"it needs a labelled sheet ({SHEET_SUFFIX}) in {folder}"


def untrained(category: CategoryInfo, folder: Path, *, trained: bool = False) -> str:
    """Say that a category cannot be learned from its folder, and why; empty if its folder lacks nothing.

    ``trained``: it has an active model, from labels that were there before.
    """
    lacks = lacking(folder)
    state = "cannot be trained anew" if trained else "has no trained model"
    return f"category {category.label} {state}: {lacks}" if lacks else ""


def _is_sheet(path: Path) -> bool:
    return path.suffix.lower() == SHEET_SUFFIX and not path.name.startswith("~$")


def _files(folder: Path) -> Iterator[Path]:
    for entry in _children(folder):
        if entry.is_dir() and not entry.is_symlink():
            yield from _files(entry)
        else:
            yield entry


def _children(folder: Path) -> list[Path]:
    """Return what a folder holds; nothing if it is not there. Raise DatasetError if it cannot be read."""
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise DatasetError(f"{folder} cannot be read: {error.strerror}.", remedy="Correct its permissions.") from error
