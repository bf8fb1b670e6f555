"""Which images are of one person, whatever names they came under.

A person may be known by the patient id of a reviewed study, by the name of a folder, by the header of an image and by
an image that has none of them. Two names are of one person where the same image came under both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from clinic_ai.store.datasets import Split


class Telling(IntEnum):
    """How much a name tells of whose image it is; the least number tells the most."""

    STUDY = 1
    """The patient id of a study that the appliance has."""
    FOLDER = 2
    """What people called the patient: a folder, a cell of a sheet or table."""
    HEADER = 3
    """The patient id of the image's own header, as its copy has it."""
    EARLIER = 4
    """Whose it was in an earlier dataset."""
    IMAGE = 5
    """The image itself, which stands for a patient of its own."""
    SPELLING = 6
    """What people called the patient, however they spelt it."""


class Name(NamedTuple):
    """A name of a patient as a key of this site."""

    telling: Telling
    key: str


@dataclass(frozen=True)
class People:
    """``key_of`` has the patient key of each image by its SHA-256, ``names_of`` every name of each patient key."""

    key_of: dict[str, str]
    names_of: dict[str, tuple[str, ...]]

    def parts(self, splits: Mapping[str, Split]) -> dict[str, set[Split]]:
        """Return the parts that earlier datasets put each patient into, under whatever name: one at most is right.

        More than one: that they are one person was not known then.
        """
        return {key: {splits[name] for name in names if name in splits} for key, names in self.names_of.items()}


def who_is_who(images: Iterable[tuple[str, Iterable[Name]]]) -> People:
    """Join the names that share an image, given by its SHA-256; the most telling name becomes the patient's key.

    The key follows from the set of images alone, in whatever order they come. An image has a name at least.
    """
    leader: dict[str, str] = {}

    def find(key: str) -> str:
        while (above := leader.setdefault(key, key)) != key:
            leader[key] = leader[above]
            key = leader[key]
        return key

    best: dict[str, Name] = {}
    first: dict[str, str] = {}
    for sha256, names in images:
        for name in names:
            best[name.key] = min(best.get(name.key, name), name)
            leader[find(name.key)] = find(first.setdefault(sha256, name.key))
    groups: dict[str, list[str]] = {}
    for key in best:
        groups.setdefault(find(key), []).append(key)
    patients = {root: min(best[key] for key in keys).key for root, keys in groups.items()}
    return People(
        key_of={sha256: patients[find(key)] for sha256, key in first.items()},
        names_of={patients[root]: tuple(sorted(keys)) for root, keys in groups.items()},
    )
