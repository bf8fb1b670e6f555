"""Calibrates the reference network on phantoms that nothing was learned from; see ``clinic_ai_ct.calibrating``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from clinic_ai_ct import sliding
from clinic_ai_ct.calibrating import (
    EXTENTS_MM3,
    LEAST_AUROC,
    Array,
    Drawing,
    best_extent,
    best_outline,
    depth_in,
    drawings,
    fitted,
    parameters_of,
)
from clinic_ai_ct.lesions import LESIONS
from clinic_ai_ct.network import CTNetwork
from clinic_ai_ct.outlining import Outline, draw
from clinic_ai_ct.reference.examples import AREAS, JUDGED, load
from clinic_ai_ct.reference.tiles import image_of
from clinic_ai_ct.served import drawn_of, least_mm3, reach_of
from clinic_ai_ct.volume import Grid


@dataclass(frozen=True)
class Seen:
    """What a network makes of phantoms: ``logits`` (n, labels judged), ``features`` (n, E), ``truth`` (n, labels)."""

    logits: Array
    features: torch.Tensor
    truth: Array


def look(network: CTNetwork, files: Sequence[Path], work: Path) -> Seen:
    """Read whole phantoms; what the network draws is written into ``work`` for ``operating_points``."""
    work.mkdir(parents=True, exist_ok=True)
    labels = network.config.classifier.labels
    order = [labels.index(name) for name in JUDGED]
    logits, features, truth = [], [], []
    for path in files:
        example = load(path)
        reading = sliding.read(network, image_of(example, network))
        logits.append(reading.logits[0, order].double().numpy())
        features.append(reading.features.global_)
        truth.append(example.labels)
        np.save(
            work / f"{path.stem}.npy", network.probabilities(reading.masks[0]).astype(np.float16), allow_pickle=False
        )
    return Seen(np.stack(logits), torch.cat(features), np.stack(truth).astype(np.float64))


@torch.inference_mode()
def whole_features(network: CTNetwork, files: Sequence[Path]) -> torch.Tensor:
    """Return what the encoder makes of whole phantoms, (n, E)."""
    return torch.cat([network.encode(image_of(load(path), network)).global_ for path in files])


def operating_points(network: CTNetwork, files: Sequence[Path], seen: Seen, work: Path) -> dict[str, Any]:
    """Return the parameters of a model that ``served`` reads; see there."""
    grid = Grid(network.config.encoder.volume, network.config.spacing)
    findings = network.config.localiser.findings
    outlines = _best_outlines(findings, files, work, grid)
    drawn = np.zeros((len(files), len(findings)))
    reaches = np.zeros((*drawn.shape, len(EXTENTS_MM3)))
    for row, path in enumerate(files):
        for place, (probability, (name, outline)) in enumerate(zip(_drawn(path, work), outlines.items(), strict=True)):
            volume = float(draw(probability, grid, grid, outline).sum()) * grid.voxel_mm3
            drawn[row, place] = drawn_of(volume, name)
            reaches[row, place] = reach_of(probability, grid, EXTENTS_MM3)
    known = _known(seen)
    extents = {
        name: best_extent(reaches[:, place], seen.truth[:, JUDGED.index(name)]) for place, name in enumerate(findings)
    }
    spoken = {
        name: np.stack([drawn[:, place], reaches[:, place, extents[name]]], axis=1)
        for place, name in enumerate(findings)
    }
    fits = {
        place: fitted(
            seen.logits[:, place],
            seen.truth[:, place],
            spoken.get(JUDGED[place]),
            outlined=JUDGED[place] in LESIONS,
        )
        for place in known
    }
    judged = [place for place, fit in fits.items() if JUDGED[place] in LESIONS or fit.auroc >= LEAST_AUROC]
    rows = {JUDGED[place]: fits[place].row for place in judged}
    return parameters_of(rows, findings, outlines, {name: EXTENTS_MM3[extents[name]] for name in findings})


def _drawn(path: Path, work: Path) -> Iterator[npt.NDArray[np.float32]]:
    """Yield the probabilities (D, H, W) of each finding."""
    for probability in np.load(work / f"{path.stem}.npy", allow_pickle=False, mmap_mode="r"):
        yield probability.astype(np.float32)


def _best_outlines(findings: Sequence[str], files: Sequence[Path], work: Path, grid: Grid) -> dict[str, Outline]:
    """Return for each finding what draws best; see ``calibrating.best_outline``."""
    drawn: dict[str, dict[Outline, list[Drawing]]] = {name: {} for name in findings}
    for path in files:
        example = load(path)
        for name, probability in zip(findings, _drawn(path, work), strict=True):
            truth, depth = example.areas[AREAS.index(name)], depth_in(name, example.hu, grid)
            for drawing in drawings(probability, truth, least_mm3(name), grid.voxel_mm3, depth):
                drawn[name].setdefault(drawing.outline, []).append(drawing)
    return {name: best_outline(own) for name, own in drawn.items()}


def _known(seen: Seen) -> list[int]:
    """Return the places of the labels that some of the phantoms show and others do not.

    Raise ValueError if a lesion is not among them.
    """
    places = [place for place in range(len(JUDGED)) if len(np.unique(seen.truth[:, place])) == 2]
    if missing := set(LESIONS) - {JUDGED[place] for place in places}:
        named = ", ".join(sorted(missing))
        raise ValueError(f"{named}: in all or none of the phantoms to calibrate on; draw more of them")
    return places
