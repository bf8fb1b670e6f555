"""What a mask shows of one kind of lesion, measured in the patient: never generated."""

from __future__ import annotations

from dataclasses import dataclass

from clinic_ai.domain import Vector
from clinic_ai.domain.evidence import Side

LESIONS = ("pericardial_effusion", "pleural_effusion", "consolidation", "ground_glass_opacity", "lung_nodule")
"""The five that have masks, in the order of the network's output channels; keys of the core's table of codes."""


@dataclass(frozen=True)
class Piece:
    """One connected piece (26-neighbourhood) of a mask. ``centroid`` is LPS (x, y, z) in mm.

    ``diameter_mm`` is the longest between voxel centres in three dimensions plus one voxel, ``axial_mm`` the longest
    in one axial slice, ``key_slice`` the index on the grid's first axis in which its area is largest.
    """

    volume_mm3: float
    diameter_mm: float
    axial_mm: float
    centroid: Vector
    key_slice: int
    side: Side
    place: str
    """Where it lies, in a report's words: "right lower lobe"; empty where that is not known."""
    mean_hu: float


@dataclass(frozen=True)
class Lesion:
    """All pieces of one kind, the largest first; none if it was looked for and not found."""

    name: str
    pieces: tuple[Piece, ...] = ()
    side: Side = ""
    """Of all pieces together: bilateral if both sides have a share worth naming."""
