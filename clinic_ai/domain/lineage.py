"""Where a frozen dataset comes from, and what was left out of it."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from clinic_ai.domain.words import Word

LabelSource = Literal["reviews", "labels"]
"""What people corrected and signed, or a folder of labelled images."""
FOLDER_ALONE: tuple[LabelSource, ...] = ("labels",)


class LeftOutReason(StrEnum):
    """Why an image, or a pair of question and answer, was not taken into a dataset."""

    DUPLICATE = "duplicate"
    BURNED_IN = "burned_in"
    NOT_STORED = "not_stored"
    OVERRULED = "overruled"
    """A signed review says something else of the same image."""
    TWO_PATIENTS = "two_patients"
    """Reviews give the same image to two patients."""
    LEAK = "leak"
    """It belongs to patients whom earlier datasets put into different parts."""
    UNREADABLE = "unreadable"
    FRAME = "frame"
    """It is about a later frame of a loop, and a dataset can only name the first."""
    NOBODYS_WORDS = "nobodys_words"
    """The guard changed the words of an answer, and the person who signed it wrote none."""
    THREE_D = "three_d"
    SIZE = "size"
    HISTORY = "history"
    DEGENERATE = "degenerate"
    PERSONAL = "personal"


class LeftOut(Word):
    """How many images, or pairs of question and answer, were left out for one reason."""

    reason: LeftOutReason
    what: Literal["image", "pair"]
    count: int = Field(ge=1)


class FolderOrigin(Word):
    """A folder whose labels were read: its path as it was given, and who gave it."""

    path: str
    given_by: str


class Lineage(Word):
    """Where a dataset comes from. ``images`` counts what it holds by source, ``parents`` are those it grew from."""

    reviews: tuple[str, ...] = ()
    """Ids of the reviews whose labels are in it."""
    folders: tuple[FolderOrigin, ...] = ()
    parents: tuple[str, ...] = ()
    images: dict[str, int] = Field(default_factory=dict)
    left_out: tuple[LeftOut, ...] = ()
    made_by: str = ""
    """The version of the appliance."""
    seen: tuple[str, ...] = ()
    """A mark of each labelled image that was looked at, taken or not: what is new since is told by it."""
