"""How often the intervals of a forecast hold the truth, on curves whose law is known, beside those of a plain fit.

    python benchmarks/scaling.py [--curves 400] [--replicates 399] [--curve loss_curve.csv]

Each line is one kind of curve: points, the correlation of neighbouring noise, its size, and what the law is. Of so many
seeded curves it prints how many of 100 intervals that promise 95 hold a, b, c, the loss at twice the steps, and the
mean loss of the last 30 % of the curve foretold from the rest, noise included; and how often the verdict is
“identifiable”. The peer is ``scipy.optimize.curve_fit`` on the same curves: estimate ± t · standard error, from the
covariance it returns. Exit code 1 if an interval holds the truth less often than its promise, by more than 99.9 % of
such counts would by chance, in the lines that are not marked hard. ``--curve`` adds the fit of a measured curve (CSV
with a step and a loss) without its first 0, 50, 200 and 500 steps.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import OptimizeWarning, curve_fit
from scipy.signal import lfilter
from scipy.stats import binom
from scipy.stats import t as student

from clinic_ai.errors import InputError
from clinic_ai.forecasting import ForecastTask, LossCurve
from clinic_ai.ml.forecast import HELD_OUT, forecast
from clinic_ai.ml.resampling import Floats
from clinic_ai.ml.scaling import Fit, fit_law
from clinic_ai.training.loss_curves import read_curve

PROMISED = 0.95
VERDICTS = 40
"""Curves of each kind that the whole forecast is made of, for its verdict."""


@dataclass(frozen=True)
class Kind:
    """Curves of one law: points ``every`` so many steps, noise of standard deviation ``noise``.

    ``hard`` ones are worth about 10 independent points or fewer, or their first points are much noisier than the rest
    and weigh most; it is known that intervals fall short there, and measured by how much.
    """

    points: int
    every: int
    a: float
    b: float
    c: float
    phi: float
    noise: float
    hard: bool = False
    falling: bool = False
    """Whether the noise is proportional to the loss above its floor, instead of even."""

    def draw(self, number: int) -> tuple[Floats, Floats]:
        """Return steps and losses of the curve of that number."""
        generator = np.random.default_rng([71, number])
        steps = self.every * np.arange(1.0, self.points + 1)
        shocks = lfilter([1.0], [1.0, -self.phi], generator.standard_normal(self.points + 300))[300:]
        shocks *= self.noise * np.sqrt(1 - self.phi**2)
        law = self.a * steps**-self.b
        if self.falling:
            shocks *= law / law.mean()
        return steps, law + self.c + shocks


KINDS = (
    Kind(60, 10, 10, 0.5, 2, 0.0, 0.1),
    Kind(60, 10, 10, 0.5, 2, 0.4, 0.1),
    Kind(200, 5, 10, 0.4, 2, 0.0, 0.3),
    Kind(200, 5, 10, 0.4, 2, 0.6, 0.3),
    Kind(200, 20, 5, 0.2, 1, 0.3, 0.2),
    Kind(200, 5, 10, 0.3, 5, 0.8, 0.3),
    Kind(1000, 4, 18.7, 0.34, 5, 0.0, 0.4),
    Kind(1000, 4, 18.7, 0.34, 5, 0.7, 0.4),
    Kind(100, 10, 10, 0.5, 0, 0.3, 0.05),
    Kind(30, 10, 10, 0.5, 2, 0.0, 0.1),
    Kind(30, 10, 10, 0.5, 2, 0.5, 0.1, hard=True),
    Kind(100, 10, 10, 0.5, 2, 0.9, 0.1, hard=True),
    Kind(200, 5, 10, 0.4, 2, 0.3, 0.3, hard=True, falling=True),
    Kind(1000, 4, 18.7, 0.34, 5, 0.5, 0.4, hard=True, falling=True),
)
NAMES = ("a", "b", "c", "loss at 2x", "held out")


def covered(kind: Kind, number: int, replicates: int) -> Counter[str]:
    """Return which intervals of one curve hold the truth: by name, and by name with ``plain`` before it."""
    steps, losses = kind.draw(number)
    twice = 2 * steps[-1:]
    truth = {"a": kind.a, "b": kind.b, "c": kind.c, "loss at 2x": float(kind.a * twice[0] ** -kind.b + kind.c)}
    fit = Fit(steps, losses, replicates=replicates, seed=number)
    found = {"a": fit.amplitude(), "b": fit.exponent(), "c": fit.asymptote(), "loss at 2x": fit.mean_at(twice)}
    held = Counter({name: int(found[name].covers(truth[name])) for name in truth})
    first = steps <= (1 - HELD_OUT) * steps[-1]
    part = Fit(steps[first], losses[first], replicates=replicates, seed=number)
    held["held out"] = int(part.observed_mean_at(steps[~first]).covers(float(losses[~first].mean())))
    for name, inside in plain(steps, losses, truth).items():
        held[f"plain {name}"] = int(inside)
    return held


def plain(steps: Floats, losses: Floats, truth: dict[str, float]) -> dict[str, bool]:
    """Return whether the usual intervals of ``curve_fit`` hold a, b and c."""
    law = fit_law(steps, losses)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OptimizeWarning)
        found, covariance = curve_fit(
            lambda t, a, b, c: a * t**-b + c, steps, losses, p0=(law.a, law.b, law.c), maxfev=20_000
        )
    reach = student.ppf((1 + PROMISED) / 2, len(steps) - 3) * np.sqrt(np.diag(covariance))
    return {name: abs(found[place] - truth[name]) <= reach[place] for place, name in enumerate("abc")}


def verdicts(kind: Kind, curves: int) -> float:
    """Return the share of the curves that are called identifiable."""
    said = 0
    for number in range(curves):
        steps, losses = kind.draw(number)
        curve = LossCurve(name="drawn", steps=tuple(steps), losses=tuple(losses))
        said += forecast(ForecastTask(curve=curve, seed=number)).identifiable
    return said / curves


def measure(kind: Kind, curves: int, replicates: int) -> bool:
    """Print one line; return whether every interval keeps its promise."""
    began, held, made = time.perf_counter(), Counter[str](), 0
    for number in range(curves):
        try:
            held += covered(kind, number, replicates)
        except InputError:  # noise may bring a loss below 0, which no forecast is made of
            continue
        made += 1
    least = binom.ppf(0.001, made, PROMISED)
    kept = all(held[name] >= least for name in NAMES)
    law = f"{kind.a:g}·t^-{kind.b:g}+{kind.c:g}"
    beside = "/".join(f"{100 * held['plain ' + name] / made:.0f}" for name in "abc")
    noise = f"{kind.noise:g}{' falling' if kind.falling else ''}"
    print(
        f"{kind.points:>6} {kind.phi:>5.1f} {noise:>11} {law:>16} "
        + "".join(f"{100 * held[name] / made:>11.1f}" for name in NAMES)
        + f"{beside:>13}"
        + f"{100 * verdicts(kind, min(VERDICTS, curves)):>9.0f} %"
        + f"{(time.perf_counter() - began) / curves * 1000:>8.0f} ms"
        + ("" if kept else "  below its promise")
        + ("  (hard)" if kind.hard else ""),
        flush=True,
    )
    return kept or kind.hard


def published(file: Path) -> None:
    """Print the fits of a measured curve without its beginning."""
    curve = read_curve(file).curve
    steps, losses = np.array(curve.steps), np.array(curve.losses)
    for drop in (0, 50, 200, 500):
        law = fit_law(steps[steps > drop], losses[steps > drop])
        print(f"without the first {drop:>3} {curve.unit}s: a = {law.a:.3f}, b = {law.b:.4f}, c = {law.c:.4f}")
    found = forecast(ForecastTask(curve=curve))
    print("identifiable" if found.identifiable else "not identifiable:", *found.reasons, sep="\n  ")


def main() -> int:
    """Measure all kinds; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--curves", type=int, default=400)
    parser.add_argument("--replicates", type=int, default=399)
    parser.add_argument("--curve", type=Path)
    chosen = parser.parse_args()
    if chosen.curve is not None:
        published(chosen.curve)
    print(f"Intervals that promise {100 * PROMISED:.0f} %, of {chosen.curves} curves each, and what they hold in %:")
    print(
        f"{'points':>6} {'corr.':>5} {'noise':>11} {'law':>16} "
        + "".join(f"{name:>11}" for name in NAMES)
        + f"{'plain a/b/c':>13}{'identif.':>11}{'a curve':>11}"
    )
    kept = [measure(kind, chosen.curves, chosen.replicates) for kind in KINDS]
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
