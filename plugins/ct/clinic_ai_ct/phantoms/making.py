"""Makes a phantom of a seed: body, lesions, other conditions, and the noise of a scanner."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from clinic_ai_ct.anatomy import LOBES
from clinic_ai_ct.lesions import LESIONS
from clinic_ai_ct.phantoms import lesions as drawing
from clinic_ai_ct.phantoms import others
from clinic_ai_ct.phantoms.body import Chest, draw_chest, heart_of
from clinic_ai_ct.phantoms.build import Build, Contrast, build
from clinic_ai_ct.phantoms.lesions import (
    Consolidation,
    DrawnLesion,
    GroundGlass,
    LesionSpec,
    Nodule,
    PericardialEffusion,
    PleuralEffusion,
)
from clinic_ai_ct.phantoms.space import Space
from clinic_ai_ct.phantoms.vessels import draw_vessels
from clinic_ai_ct.volume import Bits, Grid, Volume

OTHERS = (
    "pneumothorax",
    "atelectasis",
    "emphysema",
    "pulmonary_fibrosis",
    "lung_mass",
    "cardiomegaly",
    "mediastinal_widening",
    "pleural_thickening",
    "calcification",
    "lymphadenopathy",
)
"""What a phantom can show beside the five lesions, by condition."""
CONDITIONS = (*LESIONS, *OTHERS)
"""Conditions of which every phantom says whether it shows them."""
LARGEST_NODULE_MM = 30.0
_CHANCE = 0.22
"""Of each other condition, where nobody says which to show."""


@dataclass(frozen=True)
class Phantom:
    """A chest CT of nobody, and all that is true of it.

    ``masks`` has the five lesions by name, (D, H, W) of bits, empty where there is none; ``organs`` (D, H, W) are
    labels of ``anatomy.REGIONS``; ``labels`` maps every one of ``CONDITIONS`` to 0 or 1. ``lesions`` says what was
    drawn, one for each wish that found room. ``other_masks`` are the voxels of other conditions, where they have any.
    """

    seed: int
    volume: Volume
    masks: dict[str, Bits]
    organs: npt.NDArray[np.uint8]
    labels: dict[str, int]
    lesions: tuple[DrawnLesion, ...]
    contrast: Contrast
    other_masks: dict[str, Bits] = field(default_factory=dict)


def make(
    seed: int,
    *,
    shape: tuple[int, int, int] = (96, 128, 128),
    spacing: tuple[float, float, float] = (3.0, 2.8, 2.8),
    lesions: Sequence[LesionSpec] | None = None,
    conditions: Collection[str] | None = None,
    contrast: Contrast | None = None,
) -> Phantom:
    """Return the phantom of a seed on an upright grid of ``shape`` voxels (z, y, x) ``spacing`` mm apart.

    ``lesions`` are exactly those to be drawn, and ``conditions`` exactly those of ``OTHERS``; where None is given,
    chance decides. The same arguments give the same phantom, bit for bit. Raise ValueError for a condition that cannot
    be drawn.
    """
    generator = np.random.default_rng([seed, 9])
    by_chance = drawing.wished(generator)
    chosen = tuple(by_chance if lesions is None else lesions)
    shown = {name for name in OTHERS if generator.random() < _CHANCE}
    shown = shown if conditions is None else set(conditions)
    if unknown := shown - set(OTHERS):
        raise ValueError(f"phantoms do not show {', '.join(sorted(unknown))}")
    patient = build(generator, large_heart="cardiomegaly" in shown, contrast=contrast)
    origin = tuple(-(count - 1) / 2 * step for count, step in zip(shape, spacing, strict=True))
    grid = Grid(shape, spacing, (origin[2], origin[1], origin[0]))
    return _Maker(seed, Space(grid, patient.turns, patient.moved), patient, generator).make(chosen, shown)


class _Maker:
    def __init__(self, seed: int, space: Space, patient: Build, generator: np.random.Generator) -> None:
        self._seed, self._space, self._patient, self._generator = seed, space, patient, generator
        self._masks: dict[str, Bits] = {name: np.zeros(space.grid.shape, dtype=np.bool_) for name in LESIONS}
        self._others: dict[str, Bits] = {}
        self._drawn: list[DrawnLesion] = []

    def make(self, wishes: Sequence[LesionSpec], shown: set[str]) -> Phantom:
        chest = self._chest(wishes, shown)
        if "emphysema" in shown:
            self._others["emphysema"] = others.emphysema(chest, self._generator)
        self._pleura(chest, wishes, shown)
        self._lungs(chest, wishes, shown)
        if "calcification" in shown:
            self._others["calcification"] = others.chalk(chest, self._generator)
        self._finish_nodules(chest, wishes, shown)
        _scan(chest, self._generator)
        labels = {name: int(bool(self._masks[name].any())) for name in LESIONS}
        labels |= {name: int(name in shown or bool(self._others.get(name, np.False_).any())) for name in OTHERS}
        hu = np.clip(np.rint(chest.hu), -1024, 3071).astype(np.int16)
        return Phantom(
            self._seed,
            Volume(hu, self._space.grid),
            self._masks,
            chest.organs,
            labels,
            tuple(self._drawn),
            self._patient.contrast,
            self._others,
        )

    def _chest(self, wishes: Sequence[LesionSpec], shown: set[str]) -> Chest:
        """Draw the body with what changes its shape, before anything lies in the lungs."""
        effusion = next((wish for wish in wishes if isinstance(wish, PericardialEffusion)), None)
        heart = heart_of(self._space, self._patient)
        sac, fluid = drawing.sac_of(self._space, self._patient, heart, effusion)
        widened = float(self._generator.uniform(16, 24)) if "mediastinal_widening" in shown else 0.0
        chest = draw_chest(self._space, self._patient, self._generator, heart=heart, sac=sac, widened=widened)
        if effusion is not None:
            self._keep(effusion.name, drawing.draw_pericardial(chest, fluid))
        enlarged = others.nodes(chest, self._generator, enlarged="lymphadenopathy" in shown)
        if "lymphadenopathy" in shown:
            self._others["lymphadenopathy"] = enlarged
        return chest

    def _pleura(self, chest: Chest, wishes: Sequence[LesionSpec], shown: set[str]) -> None:
        if "pneumothorax" in shown:
            self._others["pneumothorax"] = others.pneumothorax(chest, others.a_side(self._generator), self._generator)
        if "pleural_thickening" in shown:
            side = others.a_side(self._generator)
            self._others["pleural_thickening"] = others.thick_pleura(chest, side, self._generator)
        collapsed = np.zeros(self._space.grid.shape, dtype=np.bool_)
        for wish in wishes:
            if isinstance(wish, PleuralEffusion):
                mask, surface = drawing.draw_pleural(chest, wish)
                self._keep(wish.name, mask, side=wish.side)
                if "atelectasis" in shown:
                    collapsed |= others.squeezed(chest, wish.side, surface, self._generator)
        if "atelectasis" in shown and not collapsed.any():
            collapsed = others.plate(chest, others.a_side(self._generator), self._generator)
        if "atelectasis" in shown:
            self._others["atelectasis"] = collapsed

    def _lungs(self, chest: Chest, wishes: Sequence[LesionSpec], shown: set[str]) -> None:
        for wish in wishes:
            if isinstance(wish, GroundGlass):
                self._keep(wish.name, drawing.draw_ground_glass(chest, wish, self._generator), lobe=wish.lobe)
        draw_vessels(chest, self._generator)
        if "pulmonary_fibrosis" in shown:
            self._others["pulmonary_fibrosis"] = others.fibrosis(chest, self._generator)
        for wish in wishes:
            if isinstance(wish, Consolidation):
                self._keep(wish.name, drawing.draw_consolidation(chest, wish, self._generator), lobe=wish.lobe)

    def _finish_nodules(self, chest: Chest, wishes: Sequence[LesionSpec], shown: set[str]) -> None:
        taken = self._masks["consolidation"] | self._masks["ground_glass_opacity"]
        for mask in (self._others.get(name) for name in ("atelectasis", "pulmonary_fibrosis")):
            if mask is not None:
                taken = taken | mask
        wanted = [wish for wish in wishes if isinstance(wish, Nodule)]
        if "lung_mass" in shown:
            lobe = str(self._generator.choice(LOBES))
            wanted.insert(0, Nodule(lobe, float(self._generator.uniform(34, 55))))
        for wish in wanted:
            mask = drawing.draw_nodule(chest, wish, taken, self._generator)
            taken = taken | ndimage.binary_dilation(mask, iterations=2)  # pieces that touch would be one
            if wish.diameter_mm > LARGEST_NODULE_MM:
                self._others["lung_mass"] = self._others.get("lung_mass", np.False_) | mask
            elif mask.any():
                self._keep(wish.name, mask, lobe=wish.lobe, diameter=wish.diameter_mm)

    def _keep(
        self,
        name: str,
        mask: Bits,
        *,
        side: drawing.PlaneSide | None = None,
        lobe: str = "",
        diameter: float | None = None,
    ) -> None:
        self._masks[name] |= mask
        ml = float(mask.sum()) * self._space.grid.voxel_mm3 / 1000.0
        self._drawn.append(DrawnLesion(name, side or (drawing.side_of(lobe) if lobe else ""), lobe, ml, diameter))


def _scan(chest: Chest, generator: np.random.Generator) -> None:
    """Add the noise of a reconstruction: grainy, and stronger where the rays pass through more of the body."""
    shape = chest.hu.shape
    noise = generator.standard_normal(shape, dtype=np.float32)
    for axis in (1, 2):  # neighbours in a slice resemble each other, slices do not
        noise += 0.5 * np.roll(noise, 1, axis)
    dense = (chest.hu > -300.0).mean(axis=(1, 2), dtype=np.float32)[:, None, None]
    chest.hu += noise * np.float32(chest.build.noise_hu / 1.25) * (0.6 + dense)
