"""Chest CT phantoms: seeded volumes whose anatomy and lesions are known exactly; they show nobody."""

from clinic_ai_ct.phantoms.lesions import (
    Consolidation,
    GroundGlass,
    LesionSpec,
    Nodule,
    PericardialEffusion,
    PleuralEffusion,
)
from clinic_ai_ct.phantoms.making import CONDITIONS, Phantom, make

__all__ = [
    "CONDITIONS",
    "Consolidation",
    "GroundGlass",
    "LesionSpec",
    "Nodule",
    "PericardialEffusion",
    "Phantom",
    "PleuralEffusion",
    "make",
]
