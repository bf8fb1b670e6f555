"""Measures a model as the appliance would use it: DICOM series of phantoms through the engine, against their truth."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clinic_ai.contract import Device, LoadedModel
from clinic_ai.domain import Analysis, Mask, Presence, ValidationFigures
from clinic_ai.ml.mask_scores import dice
from clinic_ai.ml.metrics import at_threshold, auroc, auroc_interval, point_intervals
from clinic_ai_ct.engine import CTEngine
from clinic_ai_ct.label_sets import CONDITION_OF
from clinic_ai_ct.lesions import LESIONS, Lesion
from clinic_ai_ct.measuring import masks_of, measure
from clinic_ai_ct.phantoms import CONDITIONS, Phantom
from clinic_ai_ct.phantoms.dicom import write_dicom
from clinic_ai_ct.reference.examples import phantom_of
from clinic_ai_ct.reference.stages import Report
from clinic_ai_ct.series import task_of
from clinic_ai_ct.volume import Bits

SMALLEST_NODULE_MM = 8.0
KEYS = {name: CONDITION_OF.get(name, name) for name in CONDITIONS}
"""What findings call the conditions of the phantoms."""
_CALLS = ("right", "wrong", "missed")
"""A finding on the wrong side is wrong, and the one on the true side is missed."""
Sides = frozenset[str]
_SIDES: dict[str, Sides] = {"bilateral": frozenset({"right", "left"})}


@dataclass(frozen=True)
class Wanted:
    """On which sides a finding has to be told, and on which it may be: all but the smallest nodules has to be.

    The side of what lies in the middle is the empty one.
    """

    must: Sides
    may: Sides

    def whole(self, said: Sides) -> dict[str, int]:
        """Return how many of each of ``_CALLS`` a finding is that is told of the sides ``said``, none if it is not."""
        right = bool(said) and self.must <= said <= self.may
        return {
            "right": int(right),
            "wrong": int(bool(said) and not right),
            "missed": int(bool(self.must) and not right),
        }

    def each(self, said: Sides) -> dict[str, int]:
        """Return the same where each side is a finding of its own."""
        return {"right": len(said & self.may), "wrong": len(said - self.may), "missed": len(self.must - said)}


@dataclass
class Tally:
    """What was counted over phantoms; ``probability`` is not a number where a model does not judge a condition."""

    dices: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in LESIONS})
    truth: list[list[int]] = field(default_factory=list)
    probability: list[list[float]] = field(default_factory=list)
    threshold: dict[str, float] = field(default_factory=dict)
    called: dict[str, dict[str, int]] = field(
        default_factory=lambda: {name: dict.fromkeys(_CALLS, 0) for name in LESIONS}
    )
    """Findings with their side, against those of the true masks: how many of each lesion were what of ``_CALLS``."""
    sided: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_CALLS, 0))
    """The same of all lesions where each side is a finding of its own: half of a bilateral one can be right."""
    size_errors: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in LESIONS})
    """Of the largest size of each kind of lesion as a report tells it, diameter or depth, relative to the true one."""
    volume_errors: list[float] = field(default_factory=list)
    """Of each other kind of lesion, relative to its true volume."""
    seconds: list[float] = field(default_factory=list)

    def add(self, phantom: Phantom, analysis: Analysis, masks: dict[str, Bits]) -> None:
        """Add one phantom."""
        found = {finding.condition: finding for finding in analysis.findings}
        self.truth.append([phantom.labels[name] for name in CONDITIONS])
        judged = {name: found[KEYS[name]] for name in CONDITIONS if KEYS[name] in found}
        self.probability.append([judged[name].probability if name in judged else math.nan for name in CONDITIONS])
        self.threshold |= {name: finding.threshold for name, finding in judged.items()}
        self.seconds.append(sum(analysis.timings_ms.values()) / 1000)
        for name in LESIONS:
            true = phantom.masks[name]
            lesion = measure(name, true, phantom.volume.grid, phantom.volume.hu)
            if name == "lung_nodule" and true.any() and _largest(phantom) < SMALLEST_NODULE_MM:
                continue
            if true.any():
                self.dices[name].append(dice(masks.get(name, np.zeros_like(true)), true))
            self._compare(name, wanted_of(phantom, lesion), analysis)
            said, wanted = (_size(masks, name) for masks in (analysis.masks, masks_of([lesion])))
            if said and wanted:
                self.size_errors[name].append(abs(said - wanted) / wanted)
            volume = sum(m.volume_mm3 or 0.0 for m in analysis.masks if m.name == name)
            if name != "lung_nodule" and true.any() and volume:
                whole = float(true.sum()) * phantom.volume.grid.voxel_mm3
                self.volume_errors.append(abs(volume - whole) / whole)

    def _compare(self, name: str, wanted: Wanted, analysis: Analysis) -> None:
        finding = next(f for f in analysis.findings if f.condition == name)
        said = _sides(finding.laterality) if finding.presence is Presence.PRESENT else Sides()
        for call in _CALLS:
            self.called[name][call] += wanted.whole(said)[call]
            self.sided[call] += wanted.each(said)[call]

    def figures(self) -> dict[str, Any]:
        """Return all figures, for people and for the summary."""
        whole = {call: sum(called[call] for called in self.called.values()) for call in _CALLS}
        truth, probability = np.array(self.truth), np.array(self.probability)
        return {
            "phantoms": len(self.truth),
            "dice": {name: _mean(values) for name, values in self.dices.items()},
            "dice_mean": _mean([value for values in self.dices.values() for value in values]),
            "auroc": {
                name: auroc(truth[:, n], probability[:, n]) if 0 < truth[:, n].sum() < len(truth) else None
                for n, name in enumerate(CONDITIONS)
                if name in self.threshold
            },
            "not_judged": [name for name in CONDITIONS if name not in self.threshold],
            "finding_and_side": {**_rates(whole), "each": self.called},
            "each_side": {**_rates(self.sided), **self.sided},
            "sizes_within_20_percent": _mean([float(e <= 0.2) for errors in self.size_errors.values() for e in errors]),
            "sizes": {
                name: {
                    "within_20_percent": sum(error <= 0.2 for error in errors),
                    "of": len(errors),
                    "mean_error": _mean(errors),
                }
                for name, errors in self.size_errors.items()
                if errors
            },
            "size_error": _mean([e for errors in self.size_errors.values() for e in errors]),
            "volume_error": _mean(self.volume_errors),
            "volumes_within_20_percent": _mean([float(error <= 0.2) for error in self.volume_errors]),
            "seconds_each": _mean(self.seconds),
        }

    def validation(self, dataset: str) -> dict[str, ValidationFigures]:
        """Return what the manifest says of each condition; those seen in all or none of the phantoms have none."""
        truth, probability = np.array(self.truth), np.array(self.probability)
        groups = [str(n) for n in range(len(truth))]
        result = {}
        for n, name in enumerate(CONDITIONS):
            true, said = truth[:, n], probability[:, n]
            if name not in self.threshold or not 0 < true.sum() < len(true):
                continue
            point = at_threshold(true, said, self.threshold[name])
            sensitivity, specificity = point_intervals(true, said, point.threshold, groups, rounds=500)
            low, high = auroc_interval(true, said, groups, rounds=500)
            result[KEYS[name]] = ValidationFigures(
                dataset=dataset,
                positives=int(true.sum()),
                negatives=int(len(true) - true.sum()),
                auroc=auroc(true, said),
                auroc_low=low,
                auroc_high=high,
                sensitivity=point.sensitivity,
                sensitivity_low=sensitivity[0],
                sensitivity_high=sensitivity[1],
                specificity=point.specificity,
                specificity_low=specificity[0],
                specificity_high=specificity[1],
            )
        return result


def wanted_of(phantom: Phantom, lesion: Lesion) -> Wanted:
    """Return where a report has to tell a lesion measured on its true mask; nodules from ``SMALLEST_NODULE_MM`` on."""
    if not lesion.pieces:
        return Wanted(Sides(), Sides())
    there = _sides(lesion.side)
    if lesion.name != "lung_nodule":
        return Wanted(there, there)
    large = Sides(one.side for one in phantom.lesions if (one.diameter_mm or 0.0) >= SMALLEST_NODULE_MM)
    return Wanted(there & large, there)


def _sides(told: str) -> Sides:
    return _SIDES.get(told, Sides({told}))


def _rates(calls: dict[str, int]) -> dict[str, float | None]:
    """Return precision and recall, None where nothing is to be divided by."""
    right = calls["right"]
    said, there = right + calls["wrong"], right + calls["missed"]
    return {"precision": right / said if said else None, "recall": right / there if there else None}


def judge(model: LoadedModel, seeds: Sequence[int], threads: int, report: Report) -> Tally:
    """Judge phantoms through the engine."""
    engine, tally = CTEngine(), Tally()
    engine.load(model, Device(threads=threads))
    for seed in seeds:
        phantom = phantom_of(seed)
        with tempfile.TemporaryDirectory() as directory:
            task = task_of(write_dicom(phantom, Path(directory) / "series"), Path(directory), (model.ref,))
            analysis = engine.analyse(task)
            if not analysis.findings:
                raise ValueError(f"phantom {seed} was refused: {analysis.refusals[0].sentence}")
            tally.add(phantom, analysis, _masks(analysis, Path(directory)))
        report(f"judged {len(tally.truth)} of {len(seeds)}, {tally.seconds[-1]:.1f} s")
    return tally


def _masks(analysis: Analysis, directory: Path) -> dict[str, Bits]:
    """Return the masks by name, in the order of the phantom's own slices: from the feet up."""
    masks: dict[str, Bits] = {}
    for one in analysis.segmentations:
        with np.load(directory / one.file, allow_pickle=False) as kept:
            bits: npt.NDArray[np.uint8] = np.unpackbits(kept["masks"], axis=-1, count=one.columns)
        masks |= {segment.name: mask.astype(np.bool_) for segment, mask in zip(one.segments, bits, strict=True)}
    return masks


def _size(masks: Sequence[Mask], name: str) -> float:
    return max((mask.size_mm or 0.0 for mask in masks if mask.name == name), default=0.0)


def _largest(phantom: Phantom) -> float:
    return max((drawn.diameter_mm or 0.0 for drawn in phantom.lesions), default=0.0)


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
