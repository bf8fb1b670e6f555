"""What it takes to serve a candidate beside its weights: parameters of its manifest, and what it is used to seeing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clinic_ai.contract import LoadedModel
from clinic_ai.ml.unlike import LIMIT, STATISTICS
from clinic_ai_ct.training.calibrating import calibrate, points_of
from clinic_ai_ct.training.cases import SPLITS, Case
from clinic_ai_ct.training.objective import Scene
from clinic_ai_ct.training.phases import ENCODER, TASKS
from clinic_ai_ct.training.prepared import stacked

LEAST_KNOWN, MOST_KNOWN, LEAST_APART = 20, 200, 10
"""Volumes of the train part that say what the encoder is used to, and of the validation part beside them."""


@dataclass(frozen=True)
class Serving:
    """``parameters`` of the manifest, ``notes`` for people, and where the distance of a volume is measured from.

    That is a file of the base, ``statistics``, whose limit is among the parameters; or ``known`` (n, E) and ``apart``
    (m, E), features of volumes that were learned from and of others. None of them is there where nothing is known.
    """

    parameters: dict[str, Any]
    notes: tuple[str, ...]
    statistics: Path | None = None
    known: Tensor | None = None
    apart: Tensor | None = None


def serving_of(
    base: LoadedModel | None,
    scene: Scene,
    train: Sequence[Case],
    validation: Sequence[Case],
    step: Callable[[int], None],
) -> Serving:
    """Return what it takes to serve the network of a scene after all phases; ``step`` as in ``calibrate``.

    What a base says is kept where neither its encoder nor its tasks learned. Raise DatasetError if a case cannot be
    used.
    """
    learned = {part for phase in scene.recipe.phases for part in scene.recipe.rates_of(phase)}
    parameters: dict[str, Any] = {} if base is None else _without_figures(base.manifest.parameters)
    limit, points = parameters.pop(LIMIT, None), points_of(base)
    statistics = None if base is None or limit is None or ENCODER in learned else Path(base.directory) / STATISTICS
    if statistics is not None and statistics.is_file():
        parameters[LIMIT] = limit
    else:
        statistics = None
    if points is not None and not learned & {ENCODER, TASKS}:
        return Serving(parameters, (), statistics)
    found = calibrate(scene.network, validation, points, scene.device, step)
    parameters |= found.parameters
    if statistics is not None:
        return Serving(parameters, found.notes, statistics)
    if len(train) < LEAST_KNOWN or len(validation) < LEAST_APART:
        note = (
            f"The model cannot tell volumes that are unlike those of its training: that takes {LEAST_KNOWN} volumes in "
            f"the train part and {LEAST_APART} in the validation part."
        )
        return Serving(parameters, (*found.notes, note))
    known = _features(scene, train[:: math.ceil(len(train) / MOST_KNOWN)], regions=True)
    # An appliance without an organ segmenter knows of no regions: that alone makes no volume unlike.
    apart = torch.cat([found.features, _features(scene, validation, regions=False)])
    return Serving(parameters, found.notes, known=known, apart=apart)


def _without_figures(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a manifest but for what was measured of that model, and how it was trained."""
    measured = tuple(f"{split}_" for split in SPLITS)
    return {key: value for key, value in parameters.items() if key != "phases" and not key.startswith(measured)}


@torch.inference_mode()
def _features(scene: Scene, cases: Sequence[Case], *, regions: bool) -> Tensor:
    """Return what the encoder makes of the window of each case, (n, E), with its regions or as if it had none."""
    found = []
    for case in cases:
        image, there = stacked([scene.prepare(case)])
        given = there.to(scene.device) if regions and there is not None else None
        found.append(scene.network.encode(image.to(scene.device), given).global_.float().cpu())
    return torch.cat(found)
