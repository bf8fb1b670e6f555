"""Five folds by patient, each with a network of its own from scratch: what the recipe is worth on other patients.

Every film is judged by the network that has not seen its patient. What turns logits into statements (temperature,
operating point, band) is fitted for each fold on the other four, so that no figure is of what was fitted to it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

from clinic_ai.ml.calibration import Band, conformal_band, fit_temperature, probabilities
from clinic_ai.ml.metrics import (
    auroc,
    auroc_interval,
    best_threshold,
    calibration_slope,
    difference_interval,
    expected_calibration_error,
    interval,
)
from clinic_ai_xray.fitting import Recipe, fit, predict
from clinic_ai_xray.reference.films import FOLDS, Films, Rows, read_films

ERROR = 0.1
"""Share of either class that may be called the other one outside the band, at most."""
_PEER_SIDE = 64
_PEER_COMPONENTS = 60

Array = npt.NDArray[np.float64]


def judge_by_folds(data: Path, work: Path, recipe: Recipe, *, processes: int) -> Array:
    """Return the logit (n,) of every film by the network of its fold. A fold in ``work`` is not trained again."""
    work.mkdir(parents=True, exist_ok=True)
    # Spawned: a forked child would hang in the threads of torch.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        parts = list(pool.map(_train_fold, range(FOLDS), [data] * FOLDS, [work] * FOLDS, [recipe] * FOLDS))
    logits = np.full(sum(len(rows) for rows, _ in parts), np.nan)
    for rows, values in parts:
        logits[rows] = values
    return logits


def _train_fold(fold: int, data: Path, work: Path, recipe: Recipe) -> tuple[npt.NDArray[np.intp], Array]:
    path = work / f"fold-{fold}.npz"
    if not path.exists():
        torch.set_num_threads(1)
        films = read_films(data)
        test, validation = films.fold(fold), films.validation()
        fitted = fit(
            films.of(~test & ~validation & ~films.doubtful), films.of(~test & validation), recipe, _Reporter(fold)
        )
        half = path.with_suffix(".half.npz")
        np.savez(half, rows=np.flatnonzero(test), logits=predict(fitted.network, films.images[test]).logits)
        half.replace(path)
    with np.load(path) as saved:
        return saved["rows"], saved["logits"].astype(np.float64)


@dataclass(frozen=True)
class _Reporter:
    fold: int

    def __call__(self, entry: dict[str, float]) -> None:
        sys.stderr.write(
            f"fold {self.fold}, epoch {entry['epoch']:.0f}: loss {entry['loss']:.4f}, "
            f"AUROC {entry['validation_auroc']:.4f}\n"
        )


def peer(films: Films) -> Array:
    """Return the scores (n,) of PCA and a support vector machine on 64 x 64 pixels, on the same folds."""
    step = films.images.shape[-1] // _PEER_SIDE
    small = films.images[:, 0, ::step, ::step].reshape(len(films.labels), -1)
    scores = np.zeros(len(films.labels))
    for fold in range(FOLDS):
        test = films.fold(fold)
        train = ~test & ~films.doubtful
        model = make_pipeline(PCA(_PEER_COMPONENTS, random_state=0), SVC(C=3.0))
        scores[test] = model.fit(small[train], films.labels[train]).decision_function(small[test])
    return scores


@dataclass(frozen=True)
class Setting:
    """What turns the logits of a network into statements."""

    temperature: float
    band: Band

    @classmethod
    def of(cls, logits: Array, labels: npt.NDArray[np.int64]) -> Setting:
        """Fit it to logits of films that their networks had not seen."""
        temperature = fit_temperature(logits, labels)
        chance = probabilities(logits, temperature)
        return cls(temperature, conformal_band(chance, labels, best_threshold(labels, chance), error=ERROR))


def figures(films: Films, logits: Array) -> dict[str, Any]:
    """Return all figures of the pooled folds, each with its 95 % interval by patient where it has one."""
    labels, patients, peers = films.labels, films.patients, peer(films)
    chance, called, absent = np.zeros(len(labels)), np.zeros(len(labels), bool), np.zeros(len(labels), bool)
    above = np.zeros(len(labels), bool)
    for fold in range(FOLDS):
        test = films.fold(fold)
        setting = Setting.of(logits[~test], labels[~test])
        chance[test] = probabilities(logits[test], setting.temperature)
        called[test], absent[test] = chance[test] >= setting.band.high, chance[test] < setting.band.low
        above[test] = chance[test] >= setting.band.threshold
    calibrated = np.log(chance / (1 - chance))
    positive, spoken = labels == 1, called | absent
    right = np.where(positive, ~absent, ~called)

    def slope(rows: npt.NDArray[np.intp]) -> float | None:
        part = labels[rows]
        return calibration_slope(part, calibrated[rows]) if 0 < part.sum() < len(part) else None

    def share(hits: Rows, among: Rows) -> Callable[[npt.NDArray[np.intp]], float | None]:
        # Each fold has a threshold of its own.
        return lambda rows: float(hits[rows][among[rows]].mean()) if among[rows].any() else None

    return {
        "images": len(labels),
        "patients": len(set(patients)),
        "positives": int(positive.sum()),
        "auroc": auroc(labels, chance),
        "auroc_interval": auroc_interval(labels, chance, patients),
        "peer_auroc": auroc(labels, peers),
        "peer_auroc_interval": auroc_interval(labels, peers, patients),
        "less_peer_interval": difference_interval(labels, chance, peers, patients),
        "expected_calibration_error": expected_calibration_error(labels, chance),
        "calibration_slope": calibration_slope(labels, calibrated),
        "calibration_slope_interval": interval(slope, patients, rounds=1000),
        "sensitivity": float(above[positive].mean()),
        "sensitivity_interval": interval(share(above, positive), patients, rounds=1000),
        "specificity": float((~above[~positive]).mean()),
        "specificity_interval": interval(share(~above, ~positive), patients, rounds=1000),
        "promised_coverage": 1 - ERROR,
        "coverage": float(right.mean()),
        "coverage_interval": interval(lambda rows: float(right[rows].mean()), patients, rounds=1000),
        "coverage_of_positives": float(right[positive].mean()),
        "coverage_of_negatives": float(right[~positive].mean()),
        "abstained": float((~spoken).mean()),
        "right_when_it_speaks": float(np.where(positive, called, absent)[spoken].mean()),
        "auroc_by_fold": [auroc(labels[films.fold(n)], chance[films.fold(n)]) for n in range(FOLDS)],
        "setting": asdict(Setting.of(logits, labels)),
    }
