"""A network as it is served: its weights, and how its numbers become findings and masks.

What turns logits into calibrated probabilities and masks lies in the parameters of the model's manifest. ``judged``
names the labels that findings are made of, apart by blanks: a network may have labels that it never learned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from clinic_ai.contract import Device, LoadedModel, ModelManifest
from clinic_ai.domain import ModelRef
from clinic_ai.errors import ModelError
from clinic_ai.ml.calibration import Band, sigmoid
from clinic_ai.ml.unlike import Unlike
from clinic_ai_ct.configurations import NetworkConfig
from clinic_ai_ct.label_sets import CONDITION_OF
from clinic_ai_ct.lesions import SIGNS
from clinic_ai_ct.measuring import LEAST_MM3
from clinic_ai_ct.network import CTNetwork
from clinic_ai_ct.outlining import Outline
from clinic_ai_ct.saving import read_network
from clinic_ai_ct.volume import Grid

LEAST_SIGN_MM3 = 200.0
_SURE = 1e-3
"""A probability nearer to 0 or 1 is taken for this: half precision tells no others apart."""
_REMEDY = "Import the model again with `clinic-ai model import DIR`."


@dataclass(frozen=True)
class Rule:
    """How one label becomes a finding.

    The probability is the sigmoid of ``slope · logit + mask_slope · drawn + reach_slope · reach + intercept``, the
    middle two from the mask; see ``MaskEvidence``. So classifier and mask are weighed once, by figures fitted on
    volumes that neither learned from, and cannot contradict each other in a report.
    """

    label: str
    condition: str
    slope: float
    mask_slope: float
    reach_slope: float
    intercept: float
    band: Band

    def probability(self, logit: float, evidence: MaskEvidence) -> float:
        """Return the calibrated probability."""
        spoken = self.mask_slope * evidence.drawn + self.reach_slope * evidence.reach
        return sigmoid(self.slope * logit + spoken + self.intercept)


@dataclass(frozen=True)
class MaskEvidence:
    """How much a mask speaks for a finding; of a finding without a mask both are 0.

    ``drawn`` is ln(1 + volume / the least that is ever drawn) of what is outlined. ``reach`` also tells apart what is
    not: the logit that the likeliest voxels of some volume reach all together, ``mask_extents_mm3`` of the model.
    """

    drawn: float = 0.0
    reach: float = 0.0


@dataclass(frozen=True)
class Served:
    """One loaded network with its operating points; ``outlines`` and ``extents_mm3`` in the order of its masks."""

    ref: ModelRef
    manifest: ModelManifest
    directory: Path
    network: CTNetwork
    rules: tuple[Rule, ...]
    outlines: tuple[Outline, ...]
    extents_mm3: tuple[float, ...]
    unlike: Unlike | None
    device: torch.device


def serve(model: LoadedModel, device: Device) -> Served:
    """Load a network onto the device. Raise ModelError if it, or a parameter of its manifest, cannot be used."""
    network = read_network(model)
    where = torch.device(f"cuda:{device.index}" if device.kind == "cuda" else "cpu")
    parameters = _Parameters(model)
    rules = _rules(parameters, network.config)
    outlines = _outlines(parameters, network.config)
    extents = _extents(parameters, network.config)
    unlike = Unlike.of(model, network.config.encoder.width)
    try:
        network.to(where)
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"The network {model.ref.label()} does not fit into the memory of the device.",
            remedy="`clinic-ai model fit ct` says which configuration fits this machine.",
        ) from error
    return Served(model.ref, model.manifest, Path(model.directory), network, rules, outlines, extents, unlike, where)


def drawn_of(volume_mm3: float, name: str) -> float:
    """Return ``MaskEvidence.drawn`` of a lesion or sign."""
    return math.log1p(volume_mm3 / least_mm3(name))


def reach_of(probability: npt.NDArray[np.float32], grid: Grid, extents_mm3: Sequence[float]) -> list[float]:
    """Return ``MaskEvidence.reach`` of probabilities (D, H, W) on ``grid``, for each of several volumes."""
    counts = [min(max(1, round(extent / grid.voxel_mm3)), probability.size) for extent in extents_mm3]
    most = max(counts)
    likeliest = np.sort(np.partition(probability, probability.size - most, axis=None)[-most:])
    values = np.clip(likeliest[[most - count for count in counts]].astype(np.float64), _SURE, 1 - _SURE)
    return [float(value) for value in np.log(values / (1 - values))]


def least_mm3(name: str) -> float:
    """Return the volume below which a piece of a lesion or sign is noise of any network."""
    return LEAST_MM3.get(name, LEAST_SIGN_MM3)


def _rules(parameters: _Parameters, config: NetworkConfig) -> tuple[Rule, ...]:
    judged = parameters.words("judged")
    if unknown := set(judged) - set(config.classifier.labels):
        raise parameters.wrong(f"its network has no label {', '.join(sorted(unknown))}")
    names = ("slopes", "mask_slopes", "reach_slopes", "intercepts", "abstain_low", "thresholds", "abstain_high")
    rows = zip(*(parameters.numbers(name, len(judged)) for name in names), strict=True)
    rules: list[Rule] = []
    for label, (slope, mask_slope, reach_slope, intercept, low, threshold, high) in zip(judged, rows, strict=True):
        if min(slope, mask_slope, reach_slope) < 0:
            raise parameters.wrong(f"what speaks for {label} would lower its probability")
        if not 0 < low <= threshold <= high < 1:
            raise parameters.wrong(f"the operating point of {label} is out of range")
        band = Band(low, threshold, high)
        condition = CONDITION_OF.get(label, label)
        rules.append(Rule(label, condition, slope, mask_slope, reach_slope, intercept, band))
    conditions = [rule.condition for rule in rules]
    if len(set(conditions)) != len(conditions):
        raise parameters.wrong("it would judge one condition by two labels")
    if without := [name for name in config.localiser.findings if name in LEAST_MM3 and name not in conditions]:
        raise parameters.wrong(f"it outlines {', '.join(without)} and does not judge it")
    return tuple(rules)


def _outlines(parameters: _Parameters, config: NetworkConfig) -> tuple[Outline, ...]:
    findings = config.localiser.findings
    if unknown := set(findings) - set(LEAST_MM3) - set(SIGNS):
        raise parameters.wrong(f"its masks of {', '.join(sorted(unknown))} cannot be measured")
    thresholds = parameters.numbers("mask_thresholds", len(findings))
    peaks = parameters.numbers("mask_peaks", len(findings))
    least = parameters.numbers("mask_least_mm3", len(findings))
    if not all(own >= least_mm3(name) for own, name in zip(least, findings, strict=True)):
        raise parameters.wrong("pieces of its masks may be smaller than what is noise of any network")
    if not all(0 < low <= high < 1 for low, high in zip(thresholds, peaks, strict=True)):
        raise parameters.wrong("the thresholds of its masks are out of range")
    return tuple(Outline(*own) for own in zip(thresholds, peaks, least, strict=True))


def _extents(parameters: _Parameters, config: NetworkConfig) -> tuple[float, ...]:
    extents = parameters.numbers("mask_extents_mm3", len(config.localiser.findings))
    if min(extents) <= 0:
        raise parameters.wrong("an extent of its masks is not above 0")
    return extents


class _Parameters:
    """Reads the parameters of a manifest, naming the model in every error."""

    def __init__(self, model: LoadedModel) -> None:
        self._values = model.manifest.parameters
        self._label = model.ref.label()

    def wrong(self, why: str) -> ModelError:
        return ModelError(f"The model {self._label} cannot be used: {why}.", remedy=_REMEDY)

    def words(self, key: str) -> Sequence[str]:
        value = self._values.get(key)
        if not isinstance(value, str) or not value.split():
            raise self.wrong(f"its manifest lacks the parameter {key}")
        return value.split()

    def numbers(self, key: str, count: int) -> tuple[float, ...]:
        value = self._values.get(key)
        if not isinstance(value, tuple) or len(value) != count or not np.isfinite(value).all():
            raise self.wrong(f"the parameter {key} of its manifest is not {count} numbers")
        return value
