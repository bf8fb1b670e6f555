"""The scaling law of loss curves: the fit, what its intervals promise, and what is said of curves that tell nothing."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import curve_fit
from scipy.signal import lfilter
from scipy.stats import binom

from clinic_ai.errors import InputError
from clinic_ai.forecasting import ForecastTask, LossCurve
from clinic_ai.ml.forecast import forecast
from clinic_ai.ml.resampling import block_length, noise_of
from clinic_ai.ml.scaling import FEWEST_POINTS, Fit, check_curve, fit_law


def curve(seed, *, points=200, every=10.0, a=10.0, b=0.5, c=2.0, phi=0.0, noise=0.1):
    """Return steps and losses of a law with noise of that deviation and that correlation of neighbours."""
    generator = np.random.default_rng(seed)
    steps = every * np.arange(1.0, points + 1)
    shocks = lfilter([1.0], [1.0, -phi], generator.standard_normal(points + 300))[300:]
    return steps, a * steps**-b + c + noise * np.sqrt(1 - phi**2) * shocks


def told(steps, losses, **wishes):
    task = ForecastTask(curve=LossCurve(name="drawn", steps=tuple(steps), losses=tuple(losses)), **wishes)
    return forecast(task)


@given(
    a=st.floats(1, 50),
    b=st.floats(0.1, 1.5),
    c=st.floats(0, 10),
    every=st.sampled_from([1.0, 4.0, 25.0]),
    points=st.integers(FEWEST_POINTS, 300),
)
@settings(deadline=None, max_examples=40)
def test_a_curve_without_noise_gives_back_its_law(a, b, c, every, points):
    steps = every * np.arange(1.0, points + 1)
    law = fit_law(steps, a * steps**-b + c)
    assert law.at(steps) == pytest.approx(a * steps**-b + c, rel=1e-4)
    assert law.b == pytest.approx(b, rel=0.02)


@pytest.mark.parametrize("seed", range(4))
def test_the_fit_is_that_of_the_published_method(seed):
    steps, losses = curve(seed, points=1000, every=4, a=18.7, b=0.34, c=5, noise=0.3)
    usual, _ = curve_fit(
        lambda t, a, b, c: a * t**-b + c, steps, losses, p0=(10, 0.5, 1), bounds=((0, 0, 0), (np.inf,) * 3)
    )
    law = fit_law(steps, losses)
    assert (law.a, law.b, law.c) == pytest.approx(tuple(usual), rel=1e-3)
    squares = [((losses - (a * steps**-b + c)) ** 2).sum() for a, b, c in ((law.a, law.b, law.c), usual)]
    assert squares[0] <= squares[1] * (1 + 1e-9)


def test_the_floor_is_never_below_zero():
    steps, losses = curve(1, a=3, b=0.3, c=0, noise=0.02)
    fit = Fit(steps, losses, replicates=199)
    assert fit.law.c >= 0
    assert fit.asymptote().low == 0
    assert fit.amplitude().low > 0


@pytest.mark.parametrize(("points", "phi"), [(60, 0.0), (60, 0.5), (200, 0.6)])
def test_the_intervals_hold_the_truth_as_often_as_they_promise(points, phi):
    """Exact: of that many curves, fewer hits than this happen once in a thousand if the promise is kept."""
    curves, level, hits = 120, 0.9, dict.fromkeys("abcm", 0)
    for seed in range(curves):
        steps, losses = curve([5, seed], points=points, phi=phi)
        fit, ahead = Fit(steps, losses, replicates=199, seed=seed), 2 * steps[-1:]
        hits["a"] += fit.amplitude(level).covers(10.0)
        hits["b"] += fit.exponent(level).covers(0.5)
        hits["c"] += fit.asymptote(level).covers(2.0)
        hits["m"] += fit.mean_at(ahead, level).covers(float(10 * ahead[0] ** -0.5 + 2))
    assert min(hits.values()) >= binom.ppf(0.001, curves, level), hits
    # and are no wider than that asks for: an interval of everything would hold it always
    assert min(hits.values()) <= binom.ppf(0.999, curves, level), hits


def test_correlated_noise_is_worth_fewer_points_and_gives_wider_intervals():
    widths = []
    for phi in (0.0, 0.7):
        steps, losses = curve(3, points=400, phi=phi)
        fit = Fit(steps, losses, replicates=199)
        assert fit.noise.autocorrelation == pytest.approx(phi, abs=0.12)
        assert fit.noise.effective_points == pytest.approx(400 * (1 - phi) / (1 + phi), rel=0.35)
        widths.append(fit.asymptote().high - fit.asymptote().low)
    assert widths[1] > 1.5 * widths[0]


def test_blocks_are_as_long_as_the_noise_remembers():
    generator = np.random.default_rng(0)
    white = generator.standard_normal(600)
    slow = np.convolve(generator.standard_normal(620), np.ones(21), "valid")
    assert block_length(white) <= 5
    assert block_length(slow) > 10
    assert block_length(np.zeros(50)) == 1


def test_drawn_noise_is_like_the_noise_it_was_made_of():
    steps, losses = curve(9, points=800, phi=0.6, noise=0.3)
    law = fit_law(steps, losses)
    jacobian = np.stack([steps**-law.b, -law.a * np.log(steps) * steps**-law.b, np.ones_like(steps)], axis=1)
    noise = noise_of(losses - law.at(steps), steps, jacobian, np.random.default_rng(1))
    drawn = noise.draw(50, np.random.default_rng(2))
    assert drawn.shape == (800, 50)
    assert drawn.std() == pytest.approx(0.3, rel=0.15)
    assert (drawn[1:] * drawn[:-1]).sum() / (drawn**2).sum() == pytest.approx(0.6, abs=0.08)


def test_noise_that_gets_smaller_is_drawn_so_and_makes_intervals_honest():
    steps, even = curve(5, points=500, c=9, noise=1.0)
    law = 10 * steps**-0.5 + 9
    falling = law + (even - law) * 0.5 * (steps / steps[0]) ** -0.5
    fit = Fit(steps, falling, replicates=199)
    assert fit.noise.trend == pytest.approx(-0.5, abs=0.15)
    drawn = fit.noise.draw(100, np.random.default_rng(0))
    sizes = np.sqrt((drawn**2).mean(axis=1))
    expected = steps**-0.5
    assert sizes[1:50].mean() / sizes[-50:].mean() == pytest.approx(
        expected[1:50].mean() / expected[-50:].mean(), rel=0.5
    )
    assert Fit(steps, even, replicates=199).noise.trend == 0


def test_the_same_curve_gives_the_same_forecast():
    steps, losses = curve(4, phi=0.3)
    assert told(steps, losses, target=2.1) == told(steps, losses, target=2.1)


def test_a_clear_curve_is_identifiable_and_foretells():
    steps, losses = curve(11, points=600, noise=0.05, phi=0.3)
    found = told(steps, losses, target=2.1)
    assert found.identifiable, found.reasons
    assert found.hold_out is not None
    assert found.hold_out.inside
    assert found.fit.c.low < 2 < found.fit.c.high
    # what is left above c halves in 2^(1/b) = 4 times the steps; 2.1 is reached at (10 / 0.1)^2 steps
    assert found.halving.low < 4 * steps[-1] < found.halving.high
    assert found.halving.value == pytest.approx(4 * steps[-1], rel=0.2)
    assert found.target_at.low < 10_000 < found.target_at.high
    assert found.twice.loss.low < 10 * (2 * steps[-1]) ** -0.5 + 2 < found.twice.loss.high
    assert not found.without_floor.enough
    assert found.without_floor.excess > 0.2


def test_what_a_short_noisy_curve_does_not_tell_is_not_told():
    steps, losses = curve(2, points=60, noise=0.6, phi=0.5)
    found = told(steps, losses, target=2.1)
    assert not found.identifiable
    assert any("b is only known to be" in reason for reason in found.reasons)
    assert any("c is only known to be" in reason for reason in found.reasons)
    assert found.halving.value is None
    assert found.now.loss.value is None
    assert found.twice.loss.value is None
    assert found.target_at.value is None
    assert found.without_floor.enough


def test_a_law_that_changes_with_the_window_is_none_however_narrow_its_intervals():
    """As in the published curve: the beginning follows another law than the rest, and hides how little is known."""
    steps, losses = curve(6, points=1000, every=4, a=160, b=0.82, c=6.1, noise=0.25)
    early = steps < 50
    losses[early] = 15 - steps[early] / 12
    found = told(steps, losses)
    assert not found.identifiable
    another = [window for window in found.windows if not window.agrees]
    assert another
    assert any("the law is another one, by more than noise explains" in reason for reason in found.reasons)
    assert found.twice.loss.value is None
    every = [found.fit, *found.windows]
    assert found.twice.loss.low <= min(fit.a.value * 8000**-fit.b.value + fit.c.value for fit in every)
    later = told(steps, losses, drop=50)
    assert later.fit.dropped == 50
    assert later.fit.c.low < 6.1 < later.fit.c.high


def test_a_curve_that_stops_falling_is_caught_by_what_was_held_back():
    steps, losses = curve(8, points=400, noise=0.03)
    late = steps > 0.72 * steps[-1]
    losses[late] += 0.15
    found = told(steps, losses)
    assert found.hold_out is not None
    assert not found.hold_out.inside
    assert any("foretold a mean loss of" in reason for reason in found.reasons)
    assert not found.identifiable


def test_targets_below_the_floor_or_behind_are_said_to_be_so():
    steps, losses = curve(11, points=600, noise=0.05)
    below = told(steps, losses, target=1.5)
    assert below.target_at is None
    assert "out of reach" in below.target_note
    behind = told(steps, losses, target=2.5)
    assert behind.target_at is not None
    assert behind.target_at.high < steps[-1]
    assert "already" in behind.target_note


def test_a_curve_without_noise_has_an_interval_of_next_to_nothing():
    steps, losses = curve(0, noise=0.0)
    found = told(steps, losses)
    assert found.identifiable, found.reasons
    assert found.fit.c.high - found.fit.c.low < 1e-3
    assert found.fit.c.low <= 2 + 1e-6
    assert found.fit.c.high >= 2 - 1e-6


def test_long_curves_are_thinned_and_say_so():
    steps, losses = curve(0, points=9000, every=1, noise=0.2)
    found = told(steps, losses)
    assert found.fit.points == 3000
    assert found.notes == ("Of the 9000 points every third is fitted.",)


def test_the_figure_is_a_png_and_says_what_the_verdict_is():
    steps, losses = curve(2, points=60, noise=0.6, phi=0.5)
    found = told(steps, losses, picture=True)
    assert base64.b64decode(found.picture).startswith(b"\x89PNG")
    assert told(steps, losses).picture == ""


STEPS = np.arange(1.0, 41.0)
FALLING = 5 * STEPS**-0.5 + 1


@pytest.mark.parametrize(
    ("steps", "losses", "code"),
    [
        (STEPS[:19], FALLING[:19], "too_few"),
        (STEPS[:1], FALLING[:1], "too_few"),
        (STEPS, np.full(40, 2.0), "constant"),
        (STEPS, np.where(STEPS == 7, np.nan, FALLING), "not_finite"),
        (STEPS, np.where(STEPS == 7, np.inf, FALLING), "not_finite"),
        (np.where(STEPS == 7, np.nan, STEPS), FALLING, "not_finite"),
        (np.where(STEPS == 7, 6.0, STEPS), FALLING, "not_in_order"),
        (STEPS[::-1], FALLING, "not_in_order"),
        (STEPS - 1, FALLING, "not_positive"),
        (STEPS, FALLING - 3, "negative"),
    ],
)
def test_what_is_no_curve_is_refused_in_one_sentence(steps, losses, code):
    with pytest.raises(InputError) as refused:
        check_curve(steps, losses)
    assert refused.value.code == code
    assert refused.value.message.endswith(".")
    assert ". " not in refused.value.message


def test_a_rising_loss_has_no_law_of_falling():
    with pytest.raises(InputError, match="does not fall"):
        fit_law(STEPS, 1 + STEPS / 10)


def test_steps_and_losses_of_different_number_are_refused():
    task = ForecastTask(curve=LossCurve(name="x", steps=tuple(STEPS), losses=tuple(FALLING[:-1])))
    with pytest.raises(InputError, match="40 steps and 39 losses"):
        forecast(task)


def test_dropping_too_much_leaves_too_little():
    with pytest.raises(InputError, match="has 10 points"):
        told(STEPS, FALLING, drop=30)
