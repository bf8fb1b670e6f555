"""Figures of a run: what they show is what the metrics say, and the same data give the same bytes."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from clinic_ai.ml.figures import loss_figure, reliability_figure, roc_figure, roc_points
from clinic_ai.ml.metrics import at_threshold, auroc, wilson_interval

LABELS = [0, 1] * 15
CHANCE = np.linspace(0.0, 1.0, 30)


def draw(best_epoch: int = 2, chance=CHANCE) -> list[bytes]:
    """Draw all three."""
    history = [{"epoch": float(e), "loss": 1 / e, "score": 0.5 + e / 10} for e in (1, 2, 3)]
    point = at_threshold(LABELS, chance, 0.5)
    return [
        loss_figure(history, metric="score", metric_name="score", best_epoch=best_epoch),
        roc_figure(LABELS, chance, auroc=auroc(LABELS, chance), interval=(0.4, 0.7), point=point, title="ROC"),
        reliability_figure(LABELS, chance, title="Reliability"),
    ]


def test_the_same_data_give_the_same_bytes_and_other_data_others():
    first, again, other = draw(), draw(), draw(chance=CHANCE**2, best_epoch=3)
    assert first == again
    assert all(one != another for one, another in zip(first, other, strict=True))
    for content in first:
        with Image.open(io.BytesIO(content)) as figure:
            assert figure.width == 1200
            assert "Software" not in figure.info


def test_the_area_below_the_curve_is_the_auroc():
    generator = np.random.default_rng(0)
    labels, scores = generator.random(200) < 0.3, generator.integers(0, 20, 200) / 20  # with ties
    false, true = roc_points(labels, scores)
    assert np.trapezoid(true, false) == pytest.approx(auroc(labels, scores))
    with pytest.raises(ValueError, match="at least one"):
        roc_points([1, 1], [0.1, 0.2])


def test_figures_of_few_images_and_sure_models_can_be_drawn():
    assert reliability_figure([0, 1], [0.0, 1.0], title="").startswith(b"\x89PNG")
    assert loss_figure([{"epoch": 1.0, "loss": 0.5, "s": 0.5}], metric="s", metric_name="s", best_epoch=1)


def test_wilson_intervals_are_those_of_the_textbook():
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe (1998), table I
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    with pytest.raises(ValueError, match="nothing"):
        wilson_interval(0, 0)


def test_they_are_drawn_without_a_home_and_leave_nothing_behind(tmp_path):
    code = (
        "from clinic_ai.ml.figures import loss_figure as f; import sys; assert 'matplotlib.pyplot' not in sys.modules"
    )
    words = {"HOME": "/nonexistent", "TMPDIR": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=words, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []
