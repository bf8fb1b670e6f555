"""How the reference model is measured: folds by patient, and no figure of what was fitted to it."""

from __future__ import annotations

import json
from concurrent.futures import Future

import numpy as np
import pytest
import torch

from clinic_ai.contract import Device
from clinic_ai.ml.calibration import probabilities
from clinic_ai_xray.distance import MARGIN, Distance, distances, fit, looks
from clinic_ai_xray.fitting import Fitted, Recipe, smaller
from clinic_ai_xray.fitting import fit as train
from clinic_ai_xray.network import FastNetwork
from clinic_ai_xray.phantom import draw_chest
from clinic_ai_xray.reference import folds, measuring
from clinic_ai_xray.reference.films import FOLDS, Films, read_films
from clinic_ai_xray.reference.folds import figures, judge_by_folds
from clinic_ai_xray.reference.measuring import Setting
from clinic_ai_xray.reference.strange import STRANGE, refused
from clinic_ai_xray.served import ServedModel


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


def test_the_figures_are_those_of_calibrated_logits_and_hold_what_is_promised(scored, monkeypatch):
    films, logits = scored
    monkeypatch.setattr(measuring, "_ROUNDS", 100)
    monkeypatch.setattr(folds, "_PEER_SIDE", 16)
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

    def submit(self, work, *arguments):
        done = Future()
        done.set_result(work(*arguments))
        return done


def test_a_fold_that_is_done_is_not_trained_again(scored, tmp_path, monkeypatch):
    films, logits = scored
    for number in range(FOLDS):
        rows = np.flatnonzero(films.fold(number))
        np.savez(tmp_path / f"fold-{number}.npz", rows=rows, logits=logits[rows].astype(np.float32))
    monkeypatch.setattr(folds, "fit", None)
    monkeypatch.setattr(folds, "ProcessPoolExecutor", Inline)
    network = FastNetwork()
    Fitted(network, 3, [{"epoch": 1, "loss": 0.5}]).save(tmp_path / "all.safetensors")
    found, fitted = judge_by_folds(tmp_path / "nowhere", tmp_path, folds.Recipe(), processes=1)
    np.testing.assert_allclose(found, logits, rtol=1e-6)
    assert (fitted.best_epoch, fitted.history) == (3, [{"epoch": 1, "loss": 0.5}])
    kept = network.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in fitted.network.state_dict().items())


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
    train, apart = features[:200], features[200:]
    found = distances(fit(train, apart), features)
    peer = PCA(32, svd_solver="full").fit(train.astype(np.float64))
    off = features - peer.mean_
    expected = np.einsum("ni,ij,nj->n", off, peer.get_precision(), off)
    expected /= MARGIN * np.percentile(expected[200:], 99)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    assert found.max() < 1
    assert distances(fit(train, apart), features + 5).min() > 1


@pytest.mark.filterwarnings("ignore:invalid value encountered in divide")
def test_a_distance_needs_some_images():
    few = np.random.default_rng(2).normal(size=(6, 40)).astype(np.float32)
    for known, apart in ((few[:2], few), (few, few[:0])):
        with pytest.raises(ValueError, match="at least three"):
            fit(known, apart)
    assert np.isfinite(distances(fit(few[:4], few[4:]), few)).all()
    same = np.zeros((6, 40), dtype=np.float32)
    assert np.isfinite(distances(fit(same, same), same)).all()


def test_before_it_is_fitted_the_distance_refuses_nothing():
    images = torch.rand(3, 1, 64, 64)
    assert Distance(10)(images, torch.rand(3, 10)).max() < 1e-6


def test_what_an_image_looks_like_is_mean_and_spread_of_its_tiles():
    images = np.random.default_rng(3).random((2, 1, 64, 64), dtype=np.float32)
    tiles = images.reshape(2, 8, 8, 8, 8).transpose(0, 1, 3, 2, 4).reshape(2, 64, 64)
    np.testing.assert_allclose(looks(images)[:, :64], tiles.mean(axis=2), atol=1e-5)
    np.testing.assert_allclose(looks(images)[:, 64:], tiles.std(axis=2), atol=1e-4)


def test_a_training_may_go_on_from_another_and_see_fewer_pixels(small):
    generator = np.random.default_rng(4)
    images = generator.random((24, 1, small.side, small.side), dtype=np.float32)
    labels = np.arange(24) % 2
    images[labels == 1, :, :32] += 1.0
    coarse = Recipe(tier=small.name, side=32, epochs=1, batch=8, rate=1e-3)
    first = train((images, labels), (images, labels), coarse, lambda _: None)
    start = {name: value.clone() for name, value in first.network.state_dict().items()}
    still = Recipe(tier=small.name, side=small.side, epochs=1, batch=8, rate=1e-12, weight_decay=0.0)
    second = train((images, labels), (images, labels), still, lambda _: None, first.network)
    for name, value in second.network.named_parameters():
        torch.testing.assert_close(value, start[name], atol=1e-6, rtol=0)
    assert smaller(images, 32).shape == (24, 1, 32, 32)
    np.testing.assert_allclose(smaller(images, 32)[0, 0, 0, 0], images[0, 0, :2, :2].mean(), rtol=1e-5)


def test_strange_images_are_made_and_counted(reference):
    films = np.stack([draw_chest(128, 128, seed=seed) for seed in range(2)])[:, None]
    shares = refused(ServedModel(reference, Device()), films)
    assert shares.keys() == STRANGE.keys()
    assert (shares["films as they are"], shares["mirrored"], shares["inverted"], shares["noise"]) == (0, 0, 1, 1)
    assert STRANGE["photograph with a border"](films[0, 0]).shape == (128, 128)
