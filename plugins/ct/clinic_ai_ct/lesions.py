"""What a mask shows of one kind of lesion, measured in the patient: never generated."""

from __future__ import annotations

from dataclasses import dataclass

from clinic_ai.domain import Vector
from clinic_ai.domain.evidence import Side

LESIONS = ("pericardial_effusion", "pleural_effusion", "consolidation", "ground_glass_opacity", "lung_nodule")
"""The five that have masks, in the order of the network's output channels; keys of the core's table of codes."""
SIGNS = (
    "pneumothorax",
    "atelectasis",
    "emphysema",
    "fibrosis",
    "lung_mass",
    "pleural_thickening",
    "calcification",
    "lymphadenopathy",
)
"""Other conditions a network may draw as well: how much it draws speaks for the finding. These masks do not go out."""
RIVALS = ("pleural_effusion", "consolidation", "lung_nodule", "atelectasis", "lung_mass", "pleural_thickening")
"""What takes the place of air in a chest and looks alike up close: in truth one of them at most fills a voxel."""


@dataclass(frozen=True)
class Piece:
    """One connected piece (26-neighbourhood) of a mask. ``centroid`` is LPS (x, y, z) in mm.

    ``diameter_mm`` is the longest between voxel centres in three dimensions plus one voxel, ``axial_mm`` the longest
    in one axial slice, ``key_slice`` the index on the grid's first axis in which its area is largest.
    ``axial_short_mm`` is across the longest axial diameter, in the same slice.
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
    axial_short_mm: float = 0.0
    depth_mm: float | None = None
    """Of fluid: how deep a pleural effusion is from front to back, how thick a pericardial one. None of the others."""
    core_hu: float | None = None
    """Median HU of what lies inside its outermost voxels; None if that is too little to tell."""
    lung_share: float | None = None
    """Share, in 0..1, of the lung or lungs it lies in; None where no mask of the lungs came with the volume."""


@dataclass(frozen=True)
class Lesion:
    """All pieces of one kind, the largest first; none if it was looked for and not found."""

    name: str
    pieces: tuple[Piece, ...] = ()
    side: Side = ""
    """Of all pieces together: bilateral if both sides have a share worth naming."""
