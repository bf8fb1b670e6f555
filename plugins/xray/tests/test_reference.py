"""How the reference model is measured: folds by patient, and no figure of what was fitted to it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from clinic_ai.ml.calibration import probabilities
from clinic_ai_xray.distance import distances, fit, limit
from clinic_ai_xray.reference import folds
from clinic_ai_xray.reference.films import FOLDS, Films, read_films
from clinic_ai_xray.reference.folds import Setting, figures, judge_by_folds


@pytest.fixture(scope="module")
def scored() -> tuple[Films, np.ndarray]:
    """400 blank films of 200 patients whose logits are twice as sure as they should be."""
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 2.5, 400)
    labels = (generator.random(400) < probabilities(logits, 1.0)).astype(np.int64)
    images = generator.random((400, 1, 128, 128), dtype=np.float32)
    patients = tuple(f"p{row // 2}" for row in range(400))
    return Films(images, labels, patients, np.zeros(400, dtype=bool)), 2 * logits


def test_each_patient_is_in_one_fold_and_every_fold_has_some(scored):
    films, _ = scored
    parts = [films.fold(number) for number in range(FOLDS)]
    assert np.array_equal(np.sum(parts, axis=0), np.ones(400))
    for part in parts:
        inside = {patient for patient, here in zip(films.patients, part, strict=True) if here}
        outside = {patient for patient, here in zip(films.patients, part, strict=True) if not here}
        assert inside
        assert not inside & outside


def test_the_figures_are_those_of_calibrated_logits_and_hold_what_is_promised(scored):
    films, logits = scored
    measured = figures(films, logits)
    assert json.loads(json.dumps(measured)) is not None
    assert measured["images"] == 400
    assert measured["patients"] == 200
    low, high = measured["auroc_interval"]
    assert low <= measured["auroc"] <= high
    # What was twice too sure is set right by the temperature of the other folds.
    assert measured["setting"]["temperature"] == pytest.approx(2.0, rel=0.25)
    slope_low, slope_high = measured["calibration_slope_interval"]
    assert slope_low <= 1.0 <= slope_high
    assert measured["coverage"] >= 0.87
    assert 0 < measured["abstained"] < 0.5
    assert measured["peer_auroc"] == pytest.approx(0.5, abs=0.12)  # there is nothing to see on noise


class Inline:
    """A pool whose work is done here: importing torch once more would take longer than the test."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __enter__(self) -> Inline:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    map = staticmethod(map)


def test_a_fold_that_is_done_is_not_trained_again(scored, tmp_path, monkeypatch):
    films, logits = scored
    for number in range(FOLDS):
        rows = np.flatnonzero(films.fold(number))
        np.savez(tmp_path / f"fold-{number}.npz", rows=rows, logits=logits[rows].astype(np.float32))
    monkeypatch.setattr(folds, "fit", None)
    monkeypatch.setattr(folds, "ProcessPoolExecutor", Inline)
    found = judge_by_folds(tmp_path / "nowhere", tmp_path, folds.Recipe(), processes=1)
    np.testing.assert_allclose(found, logits, rtol=1e-6)


def test_films_are_read_with_labels_patients_and_doubts(tmp_path):
    from PIL import Image

    for name in ("a", "b"):
        Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (256, 1))).save(tmp_path / f"{name}.png")
    (tmp_path / "labels.csv").write_text(
        "file,patient_id,folder_label,flag_folder_vs_nih\na.png,p1,Pneumonia,0\nb.png,p2,No_findings,1\n"
    )
    films = read_films(tmp_path)
    assert films.images.shape == (2, 1, 128, 128)
    assert (films.labels.tolist(), films.patients, films.doubtful.tolist()) == ([1, 0], ("p1", "p2"), [False, True])


def test_the_setting_is_fitted_to_what_it_is_given(scored):
    films, logits = scored
    setting = Setting.of(logits, films.labels)
    assert 0 < setting.band.low <= setting.band.threshold <= setting.band.high < 1


def test_the_distance_is_mahalanobis_under_probabilistic_pca():
    from sklearn.decomposition import PCA

    generator = np.random.default_rng(1)
    features = generator.normal(size=(300, 5)) @ generator.normal(size=(5, 60)) + generator.normal(size=(300, 60)) / 3
    features = features.astype(np.float32)
    buffers = fit(features)
    peer = PCA(32, svd_solver="full").fit(features.astype(np.float64))
    off = features - peer.mean_
    expected = np.einsum("ni,ij,nj->n", off, peer.get_precision(), off) / features.shape[1]
    np.testing.assert_allclose(distances(buffers, features), expected, rtol=1e-3, atol=1e-3)
    assert distances(buffers, features).mean() == pytest.approx(1.0, abs=0.05)
    assert distances(buffers, features + 5).min() > limit(buffers, features)


def test_a_distance_needs_some_images():
    with pytest.raises(ValueError, match="at least three"):
        fit(np.zeros((2, 10), dtype=np.float32))
    few = np.random.default_rng(2).normal(size=(6, 40)).astype(np.float32)
    assert np.isfinite(distances(fit(few), few)).all()
