"""Which image of a folder a cell names: with or without its folder and the ending of its name, in any case."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from pathlib import PurePosixPath

_ENDINGS = {".png": ".png", ".jpg": ".jpg", ".jpeg": ".jpg", ".jpe": ".jpg", ".dcm": ".dcm", ".dicom": ".dcm"}
"""Endings of names of images, each as the one it is compared as."""
_DRIVE = re.compile(r"^[A-Za-z]:(?=/)|^file://")


class ImageNames:
    """The images of one folder by their paths below it, such as ``patient7/a.png``."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = list(names)
        self._exact = frozenset(self._names)
        self._called: dict[str, list[str]] = defaultdict(list)
        for name in self._names:
            parts = _parts(name)
            for called in {parts[-1], _split(parts[-1])[0]}:
                self._called[called].append(name)

    def named(self, cell: str) -> tuple[str, ...]:
        """Return the image that a cell names, several if that leaves it open which, none if there is none such.

        A folder in the cell has to be that of the image, but those above the labelled folder do not matter:
        ``C:\\\\data\\\\femur\\\\a.png`` names ``a.png``.
        """
        plain = _slashes(cell)
        for path in (cell, plain):
            if path in self._exact:
                return (path,)
        wanted = _parts(plain)
        if not wanted:
            return ()
        here = [name for name in self._called.get(wanted[-1], ()) if _fits(wanted, _parts(name))]
        deepest = max((min(len(wanted), len(_parts(name))) for name in here), default=0)
        nearest = [name for name in here if min(len(wanted), len(_parts(name))) == deepest]
        # A name with its ending means the file of just this name, where another differs from it in the ending only.
        whole = [name for name in nearest if _parts(name)[-1] == wanted[-1]]
        return tuple(sorted(whole or nearest))


def _slashes(text: str) -> str:
    text = _DRIVE.sub("", text.strip().replace("\\", "/"))
    return str(PurePosixPath(text)) if text else ""


def _parts(name: str) -> tuple[str, ...]:
    """Return folders and name as they are compared: in lower case, the ending in its usual form."""
    # Composed and with single blanks, as the text of cells is handed over.
    parts = [
        " ".join(unicodedata.normalize("NFC", part).casefold().split())
        for part in PurePosixPath(name).parts
        if part not in {"/", "//"}
    ]
    if not parts:
        return ()
    stem, ending = _split(parts[-1])
    return (*parts[:-1], stem + ending)


def _split(name: str) -> tuple[str, str]:
    suffix = PurePosixPath(name).suffix
    return (name.removesuffix(suffix), _ENDINGS[suffix]) if suffix in _ENDINGS else (name, "")


def _fits(wanted: tuple[str, ...], image: tuple[str, ...]) -> bool:
    """Whether the folders of one are the last of those of the other; the names have been compared."""
    return all(one == other for one, other in zip(reversed(wanted[:-1]), reversed(image[:-1]), strict=False))
