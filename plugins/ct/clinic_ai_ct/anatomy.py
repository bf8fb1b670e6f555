"""Anatomical regions of the chest, as labels of one volume: region attention pools over them, places are read off."""

from __future__ import annotations

REGIONS = (
    "left_upper_lobe",
    "left_lower_lobe",
    "right_upper_lobe",
    "right_middle_lobe",
    "right_lower_lobe",
    "trachea",
    "heart",
    "aorta",
    "pulmonary_artery",
    "oesophagus",
    "mediastinum",
    "spine",
    "ribs",
    "sternum",
    "shoulder_girdle",
    "liver",
    "spleen",
    "stomach",
    "chest_wall",
    "subcutaneous_fat",
)
"""The label of a region is its place here, counted from 1; 0 is all else, fluid and air in the pleura too."""
LOBES = REGIONS[:5]
LEFT_LOBES, RIGHT_LOBES = LOBES[:2], LOBES[2:]


def label_of(region: str) -> int:
    """Return the label of a region. Raise ValueError if there is none of that name."""
    return REGIONS.index(region) + 1
