"""What is averaged first and looked up afterwards, against the other way round: how far they are apart."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest

from clinic_ai.ml.greys import average_blocks, resize
from clinic_ai.ml.images import load_grey
from clinic_ai_xray.phantom import draw_chest, write_dx

SIDE, FACTOR = 128, 8


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / "film.dcm"
    write_dx(path, draw_chest(SIDE * FACTOR * 2, SIDE * FACTOR * 2, seed=3, opacity=True), seed=3, bits=12)
    return path


@pytest.mark.parametrize(
    ("centre", "width", "function", "largest", "mean"),
    [
        (2048, 4096, "LINEAR", 1e-6, 1e-7),  # clips nothing: the same but for rounding
        (2048, 4096, "SIGMOID", 1e-3, 1e-4),
        (2048, 1500, "LINEAR", 0.01, 1e-3),  # clips what is darkest and brightest
        (2048, 1500, "SIGMOID", 0.006, 5e-4),
    ],
)
def test_blocks_are_averaged_before_the_window_at_a_known_price(film, tmp_path, centre, width, function, largest, mean):
    dataset = pydicom.dcmread(film)
    dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction = centre, width, function
    dataset.save_as(tmp_path / "film.dcm")
    want = resize(average_blocks(load_grey(tmp_path / "film.dcm").pixels, FACTOR), (SIDE, SIDE))
    apart = np.abs(load_grey(tmp_path / "film.dcm", size=(SIDE, SIDE)).pixels - want)
    assert apart.max() < largest
    assert apart.mean() < mean
