"""Chests drawn with a compass: just enough of a thorax to know what must be measured in it."""

from __future__ import annotations

import random

import numpy as np
import numpy.typing as npt

from clinic_ai.domain import Finding, Presence
from clinic_ai_ct.lesions import LESIONS, Lesion, Piece
from clinic_ai_ct.organs import Organs
from clinic_ai_ct.volume import HU, Bits, Grid

SHAPE = (50, 72, 90)
GRID = Grid(SHAPE, (5.0, 4.0, 4.0), origin=(-180.0, -144.0, 0.0))
"""x from −180 to 176, y from −144 to 140, z from 0 to 245 mm; the patient's middle is at x = 0."""
LOBE_WORDS = (
    "left upper lobe",
    "left lower lobe",
    "right upper lobe",
    "right middle lobe",
    "right lower lobe",
)


def coordinates() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """LPS x, y and z of every voxel."""
    z, y, x = np.meshgrid(*(np.arange(n) * s for n, s in zip(SHAPE, GRID.spacing, strict=True)), indexing="ij")
    return x + GRID.origin[0], y + GRID.origin[1], z + GRID.origin[2]


def ball(x: float, y: float, z: float, radius: float) -> Bits:
    """A ball of a radius in mm around a place in LPS."""
    at_x, at_y, at_z = coordinates()
    return (at_x - x) ** 2 + (at_y - y) ** 2 + (at_z - z) ** 2 <= radius**2


def lungs() -> tuple[Bits, Bits]:
    """The left and the right lung."""
    x, y, z = coordinates()
    return tuple(((x - c) / 60) ** 2 + (y / 80) ** 2 + ((z - 122) / 100) ** 2 < 1 for c in (75, -75))  # type: ignore[return-value]


def chest() -> HU:
    """Air, a body, and two lungs in it."""
    x, y, _ = coordinates()
    hu = np.full(SHAPE, -1000, dtype=np.int16)
    hu[(x / 160) ** 2 + (y / 110) ** 2 < 1] = 40
    left, right = lungs()
    hu[left | right] = -850
    return hu


def lobes() -> Organs:
    """The five lobes, cut flat: the upper ones above z = 140, the middle one before y = 0 below it."""
    _, y, z = coordinates()
    left, right = lungs()
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[left & (z > 140)], labels[left & (z <= 140)] = 1, 2
    labels[right & (z > 140)], labels[right & (z <= 140) & (y < 0)], labels[right & (z <= 140) & (y >= 0)] = 3, 4, 5
    return Organs(labels, {n: w.replace(" ", "_") for n, w in enumerate(LOBE_WORDS, start=1)})


# ---------------------------------------------------------------- evidence drawn by lot

_REGIONS = tuple(
    " ".join(filter(None, (side, height, depth, "region")))
    for side in ("left", "right")
    for height in ("upper", "middle", "lower")
    for depth in ("anterior", "", "posterior")
)
_CONDITIONS = {
    "emphysema": "Emphysema of the lung",
    "lung_nodule": "Lung nodule",
    "pleural_effusion": "Pleural effusion",
    "cardiomegaly": "Cardiomegaly",
    "hiatal_hernia": "Hiatal hernia",
    "lymphadenopathy": "Lymphadenopathy",
    "coronary_calcification": "Coronary artery calcification",
    "fibrotic_sequela": "Fibrotic sequela",
}


def piece(name: str, draw: random.Random, **values: object) -> Piece:
    """A piece as ``measure`` might have found it."""
    place, side, kind = "", "", draw.random()
    if name == "pericardial_effusion":
        place = "around the heart"
    elif kind < 0.9:
        place = draw.choice(_REGIONS if kind < 0.5 or name == "pleural_effusion" else LOBE_WORDS)
        side = place.split()[0]
    across = draw.uniform(4, 34) if name == "lung_nodule" else draw.uniform(20, 120)
    shares = name in {"consolidation", "ground_glass_opacity"} and side
    made: dict[str, object] = {
        "volume_mm3": 0.4 * across**3,
        "diameter_mm": 1.1 * across,
        "axial_mm": across,
        "centroid": (0.0, 0.0, 0.0),
        "key_slice": 3,
        "side": side,
        "place": place,
        "mean_hu": draw.uniform(-20, 60),
        "axial_short_mm": across * draw.uniform(0.4, 1),
        "depth_mm": draw.uniform(3, 120) if name.endswith("effusion") else None,
        "core_hu": draw.choice([None, -600.0, 30.0] if name == "lung_nodule" else [None, 9.0]),
        "lung_share": draw.choice([None, 0.004, 0.1, 0.4]) if shares else None,
    }
    return Piece(**{**made, **values})  # type: ignore[arg-type]


def lesion(name: str, *pieces: Piece) -> Lesion:
    """A lesion of these pieces."""
    sides = {p.side for p in pieces} - {""}
    side = "bilateral" if len(sides) > 1 else next(iter(sides), "")
    return Lesion(name, tuple(sorted(pieces, key=lambda p: -p.volume_mm3)), side)


def evidence(seed: int) -> tuple[tuple[Finding, ...], tuple[Lesion, ...]]:
    """Findings and lesions of a patient drawn by lot; nothing in them contradicts itself on purpose."""
    draw = random.Random(seed)
    counts = {n: draw.choice((0, 0, 1, 1, 1, 2, 3, 9)) for n in LESIONS}
    counts["pericardial_effusion"] = min(1, counts["pericardial_effusion"])
    lesions = tuple(lesion(n, *(piece(n, draw) for _ in range(count))) for n, count in counts.items())
    findings = tuple(finding(key, draw.random(), label) for key, label in _CONDITIONS.items())
    return tuple(_unsure(one) if 0.4 <= one.probability < 0.6 else one for one in findings), lesions


def _unsure(one: Finding) -> Finding:
    return one.model_copy(update={"presence": Presence.UNCERTAIN})


def finding(condition: str, probability: float, label: str = "", **values: object) -> Finding:
    """A finding, present from one half on."""
    return Finding.model_validate(
        {
            "condition": condition,
            "label": label or _CONDITIONS.get(condition, condition),
            "probability": probability,
            "threshold": 0.5,
            "presence": Presence.PRESENT if probability >= 0.5 else Presence.ABSENT,
            "instance_sha256": "0" * 64,
            **values,
        }
    )
