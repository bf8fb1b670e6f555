"""The scaling law of a loss curve, loss = a · t^(−b) + c with a, b and c not below 0: its fit, and how sure it is.

The law is fitted by least squares, the published way. Around it lie intervals of the profile likelihood: what of a, b,
c or a prediction is still in the interval fits the points nearly as well. How much worse a fit may be is not taken
from a table, which holds for independent noise and long curves alone, but found by a block bootstrap of the residuals.
For a given b the law is linear in a and c; therefore everything is computed over a grid of b, for all curves of the
bootstrap at once. Needs numpy and scipy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import fdtri  # the quantile of the F distribution

from clinic_ai.errors import InputError
from clinic_ai.ml.resampling import MOST_CORRELATED, Floats, Noise, autocorrelation, inflation, noise_of

FEWEST_POINTS = 20
SLOWEST, FASTEST = 0.005, 5.0
"""Exponents b that are looked at; an interval that reaches one of them is open there."""
PARAMETERS = 3
_CHUNK = 100
"""Curves of the bootstrap that are in memory at a time, each with all its points."""
_LEAST_NOISE = 1e-5
"""Of the range of the losses; the arithmetic is no more precise."""


@dataclass(frozen=True)
class Law:
    """loss = a · t^(−b) + c, t in steps."""

    a: float
    b: float
    c: float

    def at(self, steps: Floats) -> Floats:
        """Return the loss at steps (points,)."""
        return _law(steps, self.a, self.b, self.c)


@dataclass(frozen=True)
class Interval:
    """Where a value lies; ``low`` may be 0 and ``high`` infinite where the points do not bound it."""

    low: float
    high: float

    def covers(self, value: float) -> bool:
        """Whether a value lies in it."""
        return self.low <= value <= self.high


def check_curve(steps: Floats, losses: Floats) -> None:
    """Raise InputError, one sentence, unless a law can be fitted to losses (points,) at steps (points,)."""
    if len(steps) < FEWEST_POINTS:
        raise InputError(
            "too_few",
            f"The loss curve has {len(steps)} point{'' if len(steps) == 1 else 's'}; a forecast needs "
            f"{FEWEST_POINTS} at least.",
            remedy="Let the run go on, or log its loss more often.",
        )
    for name, values in (("step", steps), ("loss", losses)):
        if not np.isfinite(values).all():
            place = int(np.flatnonzero(~np.isfinite(values))[0]) + 1
            raise InputError("not_finite", f"Point {place} of the loss curve has a {name} that is no finite number.")
    if steps[0] <= 0:
        raise InputError("not_positive", f"The loss curve begins at step {steps[0]:g}; the law begins after step 0.")
    falls = np.flatnonzero(np.diff(steps) <= 0)
    if falls.size:
        at = int(falls[0])
        what = "twice" if steps[at] == steps[at + 1] else f"after step {steps[at]:g}"
        raise InputError("not_in_order", f"Step {steps[at + 1]:g} of the loss curve comes {what}.")
    if np.ptp(losses) <= 1e-12 * np.abs(losses).max():
        raise InputError("constant", "The loss is the same at every step, so there is nothing to fit.")
    if losses.min() < 0:
        raise InputError("negative", "The loss is negative in places, for which the law has no meaning.")


def fit_law(steps: Floats, losses: Floats) -> Law:
    """Return the law that fits best by least squares, what ``scipy.optimize.curve_fit`` with bounds at 0 converges to.

    b is searched for alone, since a and c follow from it. Raise InputError if ``check_curve`` does, or if the loss
    does not fall.
    """
    check_curve(steps, losses)

    def squares(exponent: float) -> float:
        return float(_Design(steps, np.array([exponent])).solve(losses[:, None]).squares[0, 0])

    grid = np.geomspace(SLOWEST, FASTEST, 120)
    best = int(_Design(steps, grid).solve(losses[:, None]).squares[:, 0].argmin())
    around = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, len(grid) - 1)])
    b = float(minimize_scalar(squares, bounds=around, method="bounded", options={"xatol": 1e-9}).x)
    solved = _Design(steps, np.array([b])).solve(losses[:, None])
    a, c = float(solved.a[0, 0]) * float(steps[0]) ** b, float(solved.c[0, 0])
    if a <= 0:
        raise InputError("rising", "The loss does not fall along the curve, so there is no law of falling to fit.")
    return Law(a, b, c)


class Fit:
    """A law fitted to losses (points,) at steps (points,), with the bootstrap that says how sure it is.

    Intervals hold with the probability ``level`` that they are asked for. The same ``seed`` gives the same intervals.
    Raise InputError if no law can be fitted.
    """

    def __init__(self, steps: Floats, losses: Floats, *, replicates: int = 999, seed: int = 0) -> None:
        self.steps, self.losses = steps, losses
        self.law = fit_law(steps, losses)
        generator = np.random.default_rng(seed)
        residuals = losses - self.law.at(steps)
        jacobian = _jacobian(self.law, steps)
        self.noise: Noise = noise_of(residuals, steps, jacobian, generator)
        self._floor = (_LEAST_NOISE * float(np.ptp(losses))) ** 2
        self.deviation = math.sqrt(max(float((residuals**2).sum()) / (len(steps) - PARAMETERS), self._floor))
        self._design = _Design(steps, self._grid(jacobian))
        self._observed = self._design.solve(losses[:, None])
        self._drawn = self._replicate(replicates, generator)

    @property
    def remaining(self) -> float:
        """What of the loss is above its floor c after the last step."""
        return float(self.law.at(self.steps[-1:])[0]) - self.law.c

    # ------------------------------------------------------------ intervals

    def exponent(self, level: float = 0.95) -> Interval:
        """Return the interval of b."""
        here = int(np.searchsorted(self._design.exponents, self.law.b))
        critical = self._critical(self._drawn.squares[here], level)
        return self._exponents(critical)

    def amplitude(self, level: float = 0.95) -> Interval:
        """Return the interval of a."""
        found = self._linear(lambda grid: (self.steps[0] ** grid, np.zeros_like(grid)), self.law.a, level)
        return Interval(found.low, math.inf if math.isinf(self.exponent(level).high) else found.high)

    def asymptote(self, level: float = 0.95) -> Interval:
        """Return the interval of c."""
        return self._linear(lambda grid: (np.zeros_like(grid), np.ones_like(grid)), self.law.c, level)

    def mean_at(self, steps: Floats, level: float = 0.95) -> Interval:
        """Return the interval of the law's mean over steps (any number,), as it is without noise."""
        logs = np.log(steps / self.steps[0])

        def weights(grid: Floats) -> tuple[Floats, Floats]:
            return np.exp(-np.outer(grid, logs)).mean(axis=1), np.ones_like(grid)

        return self._linear(weights, float(self.law.at(steps).mean()), level)

    def observed_mean_at(self, steps: Floats, level: float = 0.95) -> Interval:
        """Return the interval of the mean loss that is measured at steps (any number,), noise included."""
        middle, law = float(self.law.at(steps).mean()), self.mean_at(steps, level)
        end = float(self.noise.sizes[-1] * np.mean((steps / self.steps[-1]) ** self.noise.trend))
        deviation = end * self.deviation * math.sqrt(inflation(self.noise.autocorrelation) / len(steps))
        noise = deviation * math.sqrt(float(fdtri(1, self._freedom, level)))
        return Interval(middle - math.hypot(middle - law.low, noise), middle + math.hypot(law.high - middle, noise))

    # ------------------------------------------------------------ how they are found

    def _grid(self, jacobian: Floats) -> Floats:
        """Return exponents: dense where b is likely to lie, and some everywhere."""
        covariance = np.linalg.pinv(jacobian.T @ jacobian)
        error = self.deviation * math.sqrt(covariance[1, 1] * inflation(self.noise.autocorrelation))
        near = np.clip(self.law.b + error * np.linspace(-6, 6, 101), SLOWEST, FASTEST)
        return np.unique(np.concatenate([near, np.geomspace(SLOWEST, FASTEST, 60), [self.law.b]]))

    def _replicate(self, replicates: int, generator: np.random.Generator) -> _Solved:
        fitted = self.law.at(self.steps)[:, None]
        sizes = [_CHUNK] * (replicates // _CHUNK) + [replicates % _CHUNK] * (replicates % _CHUNK > 0)
        parts = [self._design.solve(fitted + self.noise.draw(size, generator)) for size in sizes]
        return _Solved.together(parts)

    @property
    def _freedom(self) -> float:
        return max(self.noise.effective_points - PARAMETERS, 1.0)

    @cached_property
    def _units(self) -> Floats:
        """What the loss of fit of each curve of the bootstrap is measured in, (replicates,); it knows correlation."""
        return self._unit(self._drawn)

    def _unit(self, solved: _Solved) -> Floats:
        variance = np.maximum(solved.least / (len(self.steps) - PARAMETERS), self._floor)
        phi = np.clip(solved.correlation, 0.0, MOST_CORRELATED)
        return variance * (1.0 + phi) / (1.0 - phi)

    def _critical(self, squares: Floats, level: float) -> float:
        """Return the sum of squares beyond which a fit is too bad, from those of the bootstrap at its own truth.

        Never less than what independent points, as many as these are worth, would ask for.
        """
        worse = np.maximum(squares - self._drawn.least, 0.0) / self._units
        found = float(np.quantile(worse, level, method="higher"))
        most = max(found, float(fdtri(1, self._freedom, level)))
        return float(self._observed.least[0] + most * self._unit(self._observed)[0])

    def _exponents(self, critical: float) -> Interval:
        grid, squares = self._design.exponents, self._observed.squares[:, 0]
        inside = np.flatnonzero(squares <= critical)
        low, high = int(inside[0]), int(inside[-1])

        def edge(inner: int, outer: int) -> float:
            share = (critical - squares[inner]) / (squares[outer] - squares[inner])
            return float(grid[inner] + share * (grid[outer] - grid[inner]))

        return Interval(
            0.0 if low == 0 else edge(low, low - 1), math.inf if high == len(grid) - 1 else edge(high, high + 1)
        )

    def _linear(self, weights: Callable[[Floats], tuple[Floats, Floats]], value: float, level: float) -> Interval:
        """Return the interval of what is ``value`` at the law: for each b of a grid, a weighted sum of a and c.

        a is here that at the first step, a · t₁^(−b).
        """
        design = self._design
        critical = self._critical(design.constrained(self._drawn, weights(design.exponents), value), level)
        around = self._exponents(critical)
        ends = max(around.low, SLOWEST), min(around.high, FASTEST)
        finer = _Design(self.steps, np.unique(np.append(np.geomspace(*ends, 200), self.law.b)))
        return finer.extremes(finer.solve(self.losses[:, None]), weights(finer.exponents), critical)


@dataclass(frozen=True)
class _Solved:
    """The best a (at the first step) and c for each exponent and curve, (exponents, curves), and the squares left.

    ``free_c`` and ``free_squares`` are those without c ≥ 0. ``least`` (curves,) is the smallest sum of squares, and
    ``correlation`` that of neighbouring residuals there. ``cross`` is the product of powers and losses, ``power`` that
    of losses with themselves.
    """

    a: Floats
    c: Floats
    squares: Floats
    free_a: Floats
    free_c: Floats
    free_squares: Floats
    cross: Floats
    power: Floats
    least: Floats
    correlation: Floats

    @classmethod
    def together(cls, parts: list[_Solved]) -> _Solved:
        """Return the curves of all parts."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts], -1) for name in cls.__annotations__))


class _Design:
    """The law at steps (points,) for a grid of exponents: for each of them linear in a and c."""

    def __init__(self, steps: Floats, exponents: Floats) -> None:
        self.exponents = exponents
        self._points = len(steps)
        self._powers = np.exp(-np.outer(exponents, np.log(steps / steps[0])))
        self._sum, self._squared = self._powers.sum(axis=1), (self._powers**2).sum(axis=1)
        self._determinant = self._points * self._squared - self._sum**2

    def solve(self, losses: Floats) -> _Solved:
        """Return the best a and c for curves (points, curves)."""
        cross, total, power = self._powers @ losses, losses.sum(axis=0), (losses**2).sum(axis=0)
        column = self._sum[:, None], self._squared[:, None], self._determinant[:, None]
        free_a = (self._points * cross - column[0] * total) / column[2]
        free_c = (column[1] * total - column[0] * cross) / column[2]
        free_squares = power - free_a * cross - free_c * total
        # With c = 0 a is never negative, nor is the loss; a negative a is held at 0, which leaves a flat line.
        a, c = np.where(free_c < 0, cross / column[1], free_a), np.maximum(free_c, 0.0)
        a, c = np.maximum(a, 0.0), np.where(a < 0, total / self._points, c)
        squares = power - 2 * (a * cross + c * total) + column[1] * a**2 + self._points * c**2
        squares = squares + 2 * column[0] * a * c
        best, curves = squares.argmin(axis=0), np.arange(losses.shape[1])
        residuals = losses - self._powers[best].T * a[best, curves] - c[best, curves]
        return _Solved(
            a,
            c,
            squares,
            free_a,
            free_c,
            free_squares,
            cross,
            power,
            (residuals**2).sum(axis=0),
            autocorrelation(residuals),
        )

    def constrained(self, solved: _Solved, weights: tuple[Floats, Floats], value: float) -> Floats:
        """Return the least squares (curves,) of laws with c ≥ 0 whose weighted sum of a and c is ``value``."""
        on_a, on_c = weights[0][:, None], weights[1][:, None]
        variance, covariance = (part[:, None] for part in self._variance(weights))
        short = value - (on_a * solved.free_a + on_c * solved.free_c)
        squares = solved.free_squares + short**2 / variance
        if weights[0].any():  # else it is c that is given
            a = value / on_a
            floor = solved.power - 2 * a * solved.cross + a**2 * self._squared[:, None]
            squares = np.where(solved.free_c + covariance / variance * short < 0, floor, squares)
        least: Floats = squares.min(axis=0)
        return least

    def extremes(self, solved: _Solved, weights: tuple[Floats, Floats], critical: float) -> Interval:
        """Return the least and largest weighted sum of a and c ≥ 0 among the laws with at most ``critical`` squares.

        ``solved`` is of one curve. For each exponent these laws lie in an ellipse, which c = 0 may cut.
        """
        on_a, on_c = weights
        variance, covariance = self._variance(weights)
        a, c, squares = solved.free_a[:, 0], solved.free_c[:, 0], solved.free_squares[:, 0]
        room = critical - squares
        inside, width = room >= 0, np.sqrt(np.maximum(room, 0.0) * variance)
        found = []
        for side in (-width, width):
            sums = on_a * a + on_c * c + side
            found.append(sums[inside & (c + covariance / variance * side >= 0)])
        cross, power = solved.cross[:, 0], solved.power[0]
        room = critical - power + cross**2 / self._squared
        reach = np.sqrt(np.maximum(room, 0.0) / self._squared)
        found += [(on_a * (cross / self._squared + side))[room >= 0] for side in (-reach, reach)]
        every = np.concatenate(found)
        return Interval(max(float(every.min()), 0.0), float(every.max()))

    def _variance(self, weights: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
        """Return, for noise of variance 1, the variance of a weighted sum of a and c, and its covariance with c."""
        on_a, on_c = weights
        variance = on_a**2 * self._points - 2 * on_a * on_c * self._sum + on_c**2 * self._squared
        return variance / self._determinant, (on_c * self._squared - on_a * self._sum) / self._determinant


def _law(steps: Floats, a: float, b: float, c: float) -> Floats:
    return a * steps**-b + c


def _jacobian(law: Law, steps: Floats) -> Floats:
    """Return how the law at steps changes with a, b and c, (points, 3)."""
    powers = steps**-law.b
    return np.stack([powers, -law.a * np.log(steps) * powers, np.ones_like(steps)], axis=1)
