"""Operating points of a candidate: fitted anew on the validation part where that is large enough, else of its base."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clinic_ai.contract import Device, LoadedModel
from clinic_ai.errors import ModelError
from clinic_ai_ct.calibrating import (
    EXTENTS_MM3,
    LEAST_AUROC,
    Drawing,
    Fit,
    Row,
    best_extent,
    best_outline,
    depth_in,
    drawings,
    fitted,
    parameters_of,
)
from clinic_ai_ct.configurations import NetworkConfig
from clinic_ai_ct.label_sets import CONDITION_OF
from clinic_ai_ct.lesions import LESIONS
from clinic_ai_ct.network import CTNetwork
from clinic_ai_ct.outlining import Outline, draw
from clinic_ai_ct.served import drawn_of, least_mm3, reach_of, serve
from clinic_ai_ct.sliding import read
from clinic_ai_ct.training.cases import Case
from clinic_ai_ct.training.chests import Chest, chest_of
from clinic_ai_ct.volume import Bits

LEAST_EXAMPLES = 5
"""Volumes with a finding, and volumes without it, that its probability is fitted on at least; masks likewise."""
_MIDDLE = EXTENTS_MM3[len(EXTENTS_MM3) // 2]


@dataclass(frozen=True)
class Points:
    """How a network is served so far: the row of each label it is judged by, outline and extent of each mask."""

    rows: dict[str, Row]
    outlines: dict[str, Outline]
    extents_mm3: dict[str, float]


@dataclass(frozen=True)
class Calibrated:
    """The parameters of a candidate, none if it cannot be served; what is to be said of them; features (n, E)."""

    parameters: dict[str, Any]
    notes: tuple[str, ...]
    features: Tensor


def points_of(base: LoadedModel | None) -> Points | None:
    """Return those of a model; None if there is none, or if it cannot be served itself."""
    if base is None:
        return None
    try:
        served = serve(base, Device())
    except ModelError:
        return None
    findings = served.network.config.localiser.findings
    rows: dict[str, Row] = {
        rule.label: (
            rule.slope,
            rule.mask_slope,
            rule.reach_slope,
            rule.intercept,
            rule.band.low,
            rule.band.threshold,
            rule.band.high,
        )
        for rule in served.rules
    }
    outlines = dict(zip(findings, served.outlines, strict=True))
    return Points(rows, outlines, dict(zip(findings, served.extents_mm3, strict=True)))


def calibrate(
    network: CTNetwork,
    cases: Sequence[Case],
    base: Points | None,
    device: torch.device,
    step: Callable[[int], None] = lambda _: None,
) -> Calibrated:
    """Return what is fitted on cases that nothing was learned from; ``step`` is told how many are done, and may raise.

    They are read as they would be served. A label of which too few are known is that of ``base``, and not judged if
    this does not judge it either. Raise DatasetError if a file of a case cannot be used.
    """
    network.eval()
    seen = _Seen(network.config, base)
    for done, case in enumerate(cases, start=1):
        chest = chest_of(case, network.config)
        found = read(network, *chest.tensors(network.config, device))
        masks = network.probabilities(found.masks[0])
        seen.add(case, chest, found.logits[0].double().cpu().numpy(), masks, found.features.global_.float().cpu())
        step(done)
    return seen.calibrated()


@dataclass(frozen=True)
class _Own:
    """What was fitted here of one label; ``outline`` is None if it has no mask."""

    fit: Fit
    outline: Outline | None
    extent_mm3: float


class _Seen:
    """What a network makes of cases, one after the other."""

    def __init__(self, config: NetworkConfig, base: Points | None) -> None:
        self._labels, self._findings = config.classifier.labels, config.localiser.findings
        self._base = base or Points({}, {}, {})
        self._logits: list[np.ndarray] = []
        self._truth: list[list[float]] = []
        """Of each case 0 or 1 for each label, not a number where it is unknown."""
        self._features: list[Tensor] = []
        self._reaches: dict[str, list[list[float]]] = {name: [] for name in self._findings}
        self._drawn: dict[str, dict[Outline, list[float]]] = {name: {} for name in self._findings}
        """For each outline that may be chosen, the volume it draws in each case."""
        self._outlined: dict[str, dict[Outline, list[Drawing]]] = {name: {} for name in self._findings}
        """The same for how well it draws in the cases in which the place of the finding is known."""
        self._masked: dict[str, int] = dict.fromkeys(self._findings, 0)

    def add(self, case: Case, chest: Chest, logits: np.ndarray, masks: np.ndarray, feature: Tensor) -> None:
        """Add one case."""
        self._logits.append(logits)
        self._truth.append([_truth(case, chest, label) for label in self._labels])
        self._features.append(feature)
        grid = chest.volume.grid
        for name, probability in zip(self._findings, masks, strict=True):
            self._reaches[name].append(reach_of(probability, grid, EXTENTS_MM3))
            given = self._given(name)
            if given is not None:
                volume = float(draw(probability, grid, grid, given).sum()) * grid.voxel_mm3
                self._drawn[name].setdefault(given, []).append(volume)
            if name in LESIONS:
                self._outline(name, probability, chest, known=case.knows(name), besides=given)

    def _outline(
        self, name: str, probability: np.ndarray, chest: Chest, *, known: bool, besides: Outline | None
    ) -> None:
        truth: Bits = chest.masks.get(name, np.zeros(probability.shape, dtype=np.bool_))
        self._masked[name] += bool(truth.any())
        depth = depth_in(name, chest.volume.hu, chest.volume.grid)
        for drawing in drawings(probability, truth, least_mm3(name), chest.volume.grid.voxel_mm3, depth):
            if drawing.outline != besides:
                self._drawn[name].setdefault(drawing.outline, []).append(drawing.volume_mm3)
            if known:
                self._outlined[name].setdefault(drawing.outline, []).append(drawing)

    def _given(self, name: str) -> Outline | None:
        """Return how the base outlines a finding; one whose mask does not go out needs none: as likely as not, then."""
        if name in self._base.outlines or name in LESIONS:
            return self._base.outlines.get(name)
        return Outline(0.5, 0.5, least_mm3(name))

    def calibrated(self) -> Calibrated:
        """Return the parameters, and in sentences where they come from."""
        rows: dict[str, Row] = {}
        outlines = {name: given for name in self._findings if (given := self._given(name)) is not None}
        extents = {name: self._base.extents_mm3.get(name, _MIDDLE) for name in self._findings}
        anew, kept, badly = [], [], []
        for label in dict.fromkeys([*self._base.rows, *self._labels]):
            if CONDITION_OF.get(label, label) in {CONDITION_OF.get(one, one) for one in rows}:
                continue  # another set's label of the same condition
            own = self._fitted(label)
            if own is None and label in self._base.rows:
                rows[label] = self._base.rows[label]
                kept.append(label)
            elif own is not None and self._worth(label, own.fit.auroc):
                rows[label] = own.fit.row
                anew.append(label)
                if own.outline is not None:
                    outlines[label], extents[label] = own.outline, own.extent_mm3
            elif own is not None:
                badly.append(label)
        missing = [name for name in self._findings if name in LESIONS and name not in rows]
        usable = bool(rows) and not missing
        return Calibrated(
            parameters_of(rows, self._findings, outlines, extents) if usable else {},
            tuple(self._said(anew, kept, badly, missing, usable=usable)),
            torch.cat(self._features),
        )

    def _fitted(self, label: str) -> _Own | None:
        """Return what is fitted here of a label; None if too little is known of it."""
        at = self._labels.index(label)
        truth = np.array([row[at] for row in self._truth])
        known = ~np.isnan(truth)
        outline = self._chosen(label) if label in self._findings else None
        undrawn = label in self._findings and outline is None
        if undrawn or min(int((truth == 1).sum()), int((truth == 0).sum())) < LEAST_EXAMPLES:
            return None
        logits = np.array([row[at] for row in self._logits])[known]
        if outline is None:
            return _Own(fitted(logits, truth[known], None, outlined=False), None, _MIDDLE)
        reaches = np.array(self._reaches[label])[known]
        extent = best_extent(reaches, truth[known])
        drawn = np.array([drawn_of(volume, label) for volume in self._drawn[label][outline]])[known]
        evidence = np.column_stack([drawn, reaches[:, extent]])
        fit = fitted(logits, truth[known], evidence, outlined=label in LESIONS)
        return _Own(fit, outline, EXTENTS_MM3[extent])

    def _worth(self, label: str, figure: float) -> bool:
        """Return whether to judge a label: what is outlined, what the base judges, and what is told well."""
        outlined = label in LESIONS and label in self._findings
        return outlined or label in self._base.rows or figure >= LEAST_AUROC

    def _chosen(self, finding: str) -> Outline | None:
        """Return how a finding is outlined, by the masks if there are enough; None if nothing tells."""
        if self._masked[finding] >= LEAST_EXAMPLES:
            return best_outline(self._outlined[finding])
        return self._given(finding)

    def _said(
        self, anew: list[str], kept: list[str], badly: list[str], missing: list[str], *, usable: bool
    ) -> list[str]:
        count = _volumes(len(self._logits))
        enough = f"{LEAST_EXAMPLES} with it and {LEAST_EXAMPLES} without"
        sentences = []
        if anew:
            sentences.append(f"Calibrated on {count} of the validation part: {', '.join(anew)}.")
        if kept:
            sentences.append(
                f"Calibrated as in the model it started from, for want of volumes in the validation part, {enough}: "
                f"{', '.join(kept)}."
            )
        if badly:
            sentences.append(
                f"Not judged, because the validation part shows that it is told badly: {', '.join(badly)}."
            )
        if not usable:
            sentences.append(
                f"The candidate cannot be used: nothing says how to judge {', '.join(missing) or 'any label'}. That "
                f"takes volumes in the validation part, {enough}, of a lesion with masks; or a model to start from "
                "that can be used."
            )
        return sentences


def _volumes(count: int) -> str:
    """Return so many volumes in words."""
    return "1 volume" if count == 1 else f"{count} volumes"


def _truth(case: Case, chest: Chest, label: str) -> float:
    if label in case.labels:
        return float(case.labels[label])
    return float(chest.masks[label].any()) if label in chest.masks else float("nan")
