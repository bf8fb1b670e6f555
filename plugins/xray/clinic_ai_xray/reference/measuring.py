"""From logits of films that their networks had not seen to statements, and what those are worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clinic_ai.ml.calibration import Band, conformal_band, fit_temperature, probabilities
from clinic_ai.ml.metrics import (
    auroc,
    auroc_interval,
    best_threshold,
    calibration_slope,
    expected_calibration_error,
    interval,
)
from clinic_ai_xray.fitting import Labels
from clinic_ai_xray.reference.films import Rows

ERROR = 0.1
"""Share of either class that may be called the other one outside the band, at most."""
_ROUNDS = 1000

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Setting:
    """What turns the logits of a network into statements."""

    temperature: float
    band: Band

    @classmethod
    def of(cls, logits: Array, labels: Labels) -> Setting:
        """Fit it to logits of films that their networks had not seen."""
        temperature = fit_temperature(logits, labels)
        chance = probabilities(logits, temperature)
        return cls(temperature, conformal_band(chance, labels, best_threshold(labels, chance), error=ERROR))


@dataclass(frozen=True)
class Judged:
    """What was said of each film: its probability, whether it was called, cleared, and above the operating point."""

    chance: Array
    called: Rows
    cleared: Rows
    above: Rows

    @classmethod
    def none(cls, count: int) -> Judged:
        """Return room for ``count`` films."""
        return cls(np.zeros(count), *(np.zeros(count, dtype=bool) for _ in range(3)))

    def fill(self, rows: Rows, logits: Array, setting: Setting) -> None:
        """Judge the films ``rows`` by their logits."""
        chance, band = probabilities(logits, setting.temperature), setting.band
        self.chance[rows] = chance
        self.called[rows], self.cleared[rows] = chance >= band.high, chance < band.low
        self.above[rows] = chance >= band.threshold


def figures_of(judged: Judged, labels: Labels, patients: Sequence[str]) -> dict[str, Any]:
    """Return what the judgements are worth, each figure with its 95 % interval by patient where it has one."""
    calibrated = np.log(judged.chance / (1 - judged.chance))
    positive, spoken = labels == 1, judged.called | judged.cleared
    right = np.where(positive, ~judged.cleared, ~judged.called)

    def slope(rows: npt.NDArray[np.intp]) -> float | None:
        part = labels[rows]
        return calibration_slope(part, calibrated[rows]) if 0 < part.sum() < len(part) else None

    def share(hits: Rows, among: Rows) -> Callable[[npt.NDArray[np.intp]], float | None]:
        # By rows and not by a threshold: each fold may have one of its own.
        return lambda rows: float(hits[rows][among[rows]].mean()) if among[rows].any() else None

    everything = np.ones(len(labels), dtype=bool)
    return {
        "images": len(labels),
        "patients": len(set(patients)),
        "positives": int(positive.sum()),
        "auroc": auroc(labels, judged.chance),
        "auroc_interval": auroc_interval(labels, judged.chance, patients),
        "expected_calibration_error": expected_calibration_error(labels, judged.chance),
        "calibration_slope": calibration_slope(labels, calibrated),
        "calibration_slope_interval": interval(slope, patients, rounds=_ROUNDS),
        "sensitivity": float(judged.above[positive].mean()),
        "sensitivity_interval": interval(share(judged.above, positive), patients, rounds=_ROUNDS),
        "specificity": float((~judged.above[~positive]).mean()),
        "specificity_interval": interval(share(~judged.above, ~positive), patients, rounds=_ROUNDS),
        "promised_coverage": 1 - ERROR,
        "coverage": float(right.mean()),
        "coverage_interval": interval(share(right, everything), patients, rounds=_ROUNDS),
        "coverage_of_positives": float(right[positive].mean()),
        "coverage_of_negatives": float(right[~positive].mean()),
        "abstained": float((~spoken).mean()),
        "right_when_it_speaks": float(np.where(positive, judged.called, judged.cleared)[spoken].mean()),
    }
