"""From logits to probabilities one may read as frequencies; numpy only."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clinic_ai.domain import Presence

_TEMPERATURES = np.geomspace(0.05, 20.0, 2001)
_SURE = 1e-4
_EDGE = 1e-12
"""An edge of a band lies within 0..1; moving it further in would break what the band promises."""


def sigmoid(logit: float) -> float:
    """Return 1 / (1 + exp(-logit)) without overflow."""
    if logit >= 0:
        return 1.0 / (1.0 + math.exp(-logit))
    return math.exp(logit) / (1.0 + math.exp(logit))


def probabilities(logits: npt.ArrayLike, temperature: float) -> npt.NDArray[np.float64]:
    """Return the calibrated probabilities of ``logits``: the sigmoid of logit / temperature."""
    scaled = np.clip(np.asarray(logits, dtype=np.float64) / temperature, -700.0, 700.0)
    calibrated: npt.NDArray[np.float64] = 1.0 / (1.0 + np.exp(-scaled))
    return calibrated


def fit_temperature(logits: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Return the temperature in 0.05..20 that makes ``labels`` likeliest. Raise ValueError if there are none.

    Each class counts as if one image more of the other one had been among it (the targets of Platt, 1999): where a few
    images are told apart without error, no finite temperature would be the likeliest.
    """
    logit, label = np.asarray(logits, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if not logit.size:
        raise ValueError("a temperature cannot be fitted to no examples")
    positives = float(label.sum())
    target = np.where(label == 1, (positives + 1) / (positives + 2), 1 / (label.size - positives + 2))
    scaled = logit[None, :] / _TEMPERATURES[:, None]
    losses = (np.logaddexp(0.0, scaled) - target * scaled).mean(axis=1)
    return float(_TEMPERATURES[int(np.argmin(losses))])


@dataclass(frozen=True)
class Band:
    """An operating point with a band around it in which the model abstains; all in 0..1 of the probability."""

    low: float
    threshold: float
    high: float

    def presence(self, probability: float) -> Presence:
        """Return what is to be said of ``probability``: uncertain from ``low`` up to, not including, ``high``."""
        if self.low <= probability < self.high:
            return Presence.UNCERTAIN
        return Presence.PRESENT if probability >= self.threshold else Presence.ABSENT


def abstention_band(probability: npt.ArrayLike, threshold: float, *, abstain: float) -> Band:
    """Return the band around ``threshold`` that holds the share ``abstain`` of examples, those nearest in logits.

    Its edges stay within 0.0001..0.9999: where all examples are told apart without doubt, they would leave 0..1.
    """
    values = np.clip(np.asarray(probability, dtype=np.float64), _SURE, 1 - _SURE)
    if not values.size:
        raise ValueError("a band cannot be fitted to no examples")
    threshold = min(max(threshold, _SURE), 1 - _SURE)
    centre = math.log(threshold / (1 - threshold))
    width = float(np.quantile(np.abs(np.log(values / (1 - values)) - centre), abstain))
    return Band(max(sigmoid(centre - width), _SURE), threshold, min(sigmoid(centre + width), 1 - _SURE))


def conformal_band(probability: npt.ArrayLike, labels: npt.ArrayLike, threshold: float, *, error: float) -> Band:
    """Return the band outside which at most the share ``error`` of either class is called the other one.

    Class-conditional split conformal prediction (Vovk, 2012): with n calibration images of a class that nothing was
    fitted to, the k = floor(error * (n + 1))-th most unlike their class bound it for the next image. Where the two
    bounds leave nothing between them, the operating point alone decides. Raise ValueError if a class is too small to
    promise this: fewer than 1 / error - 1 images.
    """
    values, truth = np.asarray(probability, dtype=np.float64), np.asarray(labels, dtype=bool)
    positives, negatives = np.sort(values[truth]), np.sort(values[~truth])[::-1]
    ranks = [math.floor(error * (len(part) + 1)) for part in (positives, negatives)]
    if min(ranks) < 1:
        fewest = math.ceil(1 / error) - 1
        raise ValueError(
            f"{len(positives)} positive and {len(negatives)} negative images are too few to promise an error of "
            f"{error:.0%}; {fewest} of each are needed"
        )
    low, high = float(positives[ranks[0] - 1]), float(np.nextafter(negatives[ranks[1] - 1], 1.0))
    if low >= high:
        low = high = threshold = min(max(threshold, high), low)
    low, high = max(low, _EDGE), min(high, 1 - _EDGE)
    return Band(low, min(max(threshold, low), high), high)
