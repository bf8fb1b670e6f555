"""From logits to probabilities one may read as frequencies; numpy only."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clinic_ai.domain import Presence

_TEMPERATURES = np.geomspace(0.05, 20.0, 2001)
_SURE = 1e-4


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
    """Return the temperature in 0.05..20 that makes ``labels`` likeliest. Raise ValueError if there are none."""
    logit, label = np.asarray(logits, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if not logit.size:
        raise ValueError("a temperature cannot be fitted to no examples")
    scaled = logit[None, :] / _TEMPERATURES[:, None]
    losses = (np.logaddexp(0.0, scaled) - label * scaled).mean(axis=1)
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
