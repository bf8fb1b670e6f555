"""Five folds by patient, each with a network of its own from scratch: what the recipe is worth on other patients.

Every film is judged by the network that has not seen its patient. What turns logits into statements (temperature,
operating point, band) is fitted for each fold on the other four, so that no figure is of what was fitted to it.
"""

from __future__ import annotations

import sys
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

from clinic_ai.ml.metrics import (
    auroc,
    auroc_interval,
    difference_interval,
)
from clinic_ai_xray.fitting import Fitted, Recipe, fit, predict, smaller
from clinic_ai_xray.reference.films import FOLDS, Films, read_films
from clinic_ai_xray.reference.measuring import Array, Judged, Setting, figures_of

_PEER_SIDE = 64
_PEER_COMPONENTS = 100


def judge_by_folds(data: Path, work: Path, recipe: Recipe, *, processes: int) -> tuple[Array, Fitted]:
    """Return the logit (n,) of every film by the network of its fold, and the network for all films.

    What is in ``work`` already is not trained again.
    """
    work.mkdir(parents=True, exist_ok=True)
    # Spawned: a forked child would hang in the threads of torch.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        last = pool.submit(_train_on_all, data, work, recipe)
        parts = list(pool.map(_train_fold, range(FOLDS), [data] * FOLDS, [work] * FOLDS, [recipe] * FOLDS))
        fitted = Fitted.load(last.result(), recipe.tier)
    logits = np.full(sum(len(rows) for rows, _ in parts), np.nan)
    for rows, values in parts:
        logits[rows] = values
    return logits, fitted


def _train_on_all(data: Path, work: Path, recipe: Recipe) -> Path:
    """Train on all films but those that choose the epoch."""
    path = work / "all.safetensors"
    if not path.exists():
        torch.set_num_threads(1)
        films = read_films(data)
        apart = films.validation()
        fit(films.of(~apart & ~films.doubtful), films.of(apart), recipe, Reporter("all")).save(path)
    return path


def _train_fold(fold: int, data: Path, work: Path, recipe: Recipe) -> tuple[npt.NDArray[np.intp], Array]:
    path = work / f"fold-{fold}.npz"
    if not path.exists():
        torch.set_num_threads(1)
        films = read_films(data)
        test, validation = films.fold(fold), films.validation()
        fitted = fit(
            films.of(~test & ~validation & ~films.doubtful),
            films.of(~test & validation),
            recipe,
            Reporter(f"fold {fold}"),
        )
        half = path.with_suffix(".half.npz")
        np.savez(half, rows=np.flatnonzero(test), logits=predict(fitted.network, films.images[test]).logits)
        half.replace(path)
    with np.load(path) as saved:
        return saved["rows"], saved["logits"].astype(np.float64)


@dataclass(frozen=True)
class Reporter:
    """Writes a line for every epoch."""

    what: str

    def __call__(self, entry: dict[str, float]) -> None:
        """Write the line."""
        sys.stderr.write(
            f"{self.what}, epoch {entry['epoch']:.0f}: loss {entry['loss']:.4f}, "
            f"AUROC {entry['validation_auroc']:.4f}\n"
        )


def peer(films: Films) -> Array:
    """Return the scores (n,) of PCA and a support vector machine on 64 x 64 pixels, on the same folds."""
    small = smaller(films.images, _PEER_SIDE).numpy().reshape(len(films.labels), -1)
    scores = np.zeros(len(films.labels))
    for fold in range(FOLDS):
        test = films.fold(fold)
        train = ~test & ~films.doubtful
        model = make_pipeline(PCA(_PEER_COMPONENTS, random_state=0), SVC())
        scores[test] = model.fit(small[train], films.labels[train]).decision_function(small[test])
    return scores


def figures(films: Films, logits: Array) -> dict[str, Any]:
    """Return all figures of the pooled folds, each with its 95 % interval by patient where it has one."""
    labels, patients, peers = films.labels, films.patients, peer(films)
    judged = Judged.none(len(labels))
    for fold in range(FOLDS):
        test = films.fold(fold)
        # Fitted to the other folds: no figure is of what was fitted to it.
        judged.fill(test, logits[test], Setting.of(logits[~test], labels[~test]))
    return {
        **figures_of(judged, labels, patients),
        "peer_auroc": auroc(labels, peers),
        "peer_auroc_interval": auroc_interval(labels, peers, patients),
        "less_peer_interval": difference_interval(labels, judged.chance, peers, patients),
        "auroc_by_fold": [auroc(labels[films.fold(n)], judged.chance[films.fold(n)]) for n in range(FOLDS)],
        "setting": asdict(Setting.of(logits, labels)),
    }
